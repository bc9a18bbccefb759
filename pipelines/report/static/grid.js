"use strict";

/* A grid of equally tall tiles, of which only those near the screen exist. */

var igvg = globalThis.igvg ?? {};

igvg.grid = (() => {
  const GAP = 14;
  // CSS pixels beyond the screen in which tiles exist, above and below.
  const OVERSCAN = 500;

  /** How many columns fit, and how wide each is. */
  function measureColumns(width) {
    const least = width < 560 ? 145 : 220;
    const columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    return { columns, tileWidth: Math.floor((width - GAP * (columns - 1)) / columns) };
  }

  /**
   * Fill a list element.
   *
   * `makeTile(item, position)` returns an <li>, whose height is that of all others. The result has `show(items)` and
   * `reveal(position)`, which scrolls to a tile and gives the focus to its link.
   */
  function connect(list, makeTile) {
    const tiles = new Map();
    let items = [];
    let layout = null;
    let pending = false;

    function place(position) {
      const tile = makeTile(items[position], position);
      const [row, column] = [Math.floor(position / layout.columns), position % layout.columns];
      tile.style.width = `${layout.tileWidth}px`;
      tile.style.transform = `translate(${column * (layout.tileWidth + GAP)}px, ${row * layout.rowHeight}px)`;
      tile.setAttribute("aria-posinset", position + 1);
      tile.setAttribute("aria-setsize", items.length);
      tiles.set(position, tile);
      // In the order of the list, so that Tab goes through it in order.
      const later = [...tiles.keys()].filter((other) => other > position).sort((a, b) => a - b)[0];
      list.insertBefore(tile, later === undefined ? null : tiles.get(later));
      return tile;
    }

    function update() {
      pending = false;
      if (!items.length || !layout) return;
      const top = list.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor((-top - OVERSCAN) / layout.rowHeight)) * layout.columns;
      const rows = Math.max(0, Math.ceil((innerHeight - top + OVERSCAN) / layout.rowHeight));
      const end = Math.min(items.length, rows * layout.columns);
      for (const [position, tile] of tiles) {
        if ((position >= first && position < end) || tile.contains(document.activeElement)) continue;
        tile.remove();
        tiles.delete(position);
      }
      for (let position = first; position < end; position++) if (!tiles.has(position)) place(position);
    }

    function arrange() {
      for (const tile of tiles.values()) tile.remove();
      tiles.clear();
      list.style.height = "0px";
      if (!items.length) return;
      layout = { ...measureColumns(list.clientWidth), rowHeight: 0 };
      layout.rowHeight = place(0).offsetHeight + GAP;
      list.style.height = `${Math.ceil(items.length / layout.columns) * layout.rowHeight - GAP}px`;
      update();
    }

    function schedule() {
      if (!pending) requestAnimationFrame(update);
      pending = true;
    }

    function show(newItems) {
      items = newItems;
      arrange();
    }

    function reveal(position) {
      if (!layout || !(position in items)) return;
      const top = list.getBoundingClientRect().top + Math.floor(position / layout.columns) * layout.rowHeight;
      if (top < 0 || top + layout.rowHeight > innerHeight) {
        scrollBy({ top: top - (innerHeight - layout.rowHeight) / 2, behavior: "instant" });
      }
      update();
      tiles.get(position)?.querySelector("a")?.focus({ preventScroll: true });
    }

    let width = list.clientWidth;
    new ResizeObserver(() => {
      if (list.clientWidth === width) return;
      width = list.clientWidth;
      arrange();
    }).observe(list);
    addEventListener("scroll", schedule, { passive: true });
    addEventListener("resize", schedule);
    return { show, reveal };
  }

  return { connect };
})();
