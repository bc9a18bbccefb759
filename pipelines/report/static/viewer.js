"use strict";

/* The viewer: one expression at a time, with layers that switch, over the whole screen. */

var igvg = globalThis.igvg ?? {};

igvg.viewer = (() => {
  const { makeOutcomes, makeInstances, makeLayerSwitches, KINDS } = igvg.facts;

  /**
   * Let a dialog show expressions.
   *
   * `listItems()` returns the indices that previous and next go through, `chooseSets()` those of the sets shown;
   * `goTo(index)` is called for another expression, `onClose(index)` when the reader leaves.
   */
  function connect(dialog, data, { listItems, chooseSets, goTo, onClose }) {
    const find = (name) => dialog.querySelector(`[data-part="${name}"]`);
    const shown = new Set(igvg.layers.LAYERS.filter((layer) => layer.shown).map((layer) => layer.key));
    let current = null;
    let panels = [];
    let truth = null;

    function drawAll() {
      const top = find("panels").getBoundingClientRect().top + find("body").scrollTop;
      // Where panels stand one below the other, the next one looks in from below.
      const share = panels.length > 1 && find("panels").clientWidth < 640 ? 0.7 : 1;
      const space = Math.max(240, (innerHeight - top - 84) * share);
      for (const panel of panels) panel.draw(shown, space);
    }

    function fillSwitches() {
      const details = panels.map(({ result }) => ({ truth, result }));
      find("layers").replaceChildren(...makeLayerSwitches(shown, details, toggleLayer));
    }

    function toggleLayer(key) {
      shown[shown.has(key) ? "delete" : "add"](key);
      for (const input of find("layers").querySelectorAll("input")) input.checked = shown.has(input.value);
      drawAll();
    }

    function toggleInstance(instance) {
      for (const input of find("facts").querySelectorAll(`[data-instance="${instance}"]`)) input.click();
    }

    function describe(index) {
      const items = listItems();
      const position = items.indexOf(index);
      find("text").textContent = data.text[index];
      find("id").textContent = data.id[index];
      find("image").textContent = data.images.name[data.image[index]];
      find("kind").textContent = KINDS[data.kind[index]] ?? data.kind[index];
      find("position").textContent = position < 0
        ? "outside of the filters"
        : `${(position + 1).toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
      find("previous").disabled = position === 0 || !items.length;
      find("next").disabled = position === items.length - 1 || !items.length;
      document.title = `${data.text[index]} · ${dialog.dataset.title}`;
    }

    function fill(index, detail) {
      const at = data.image[index];
      const { file, name, width, height } = data.images;
      const image = { file: file[at], name: name[at], width: width[at], height: height[at] };
      truth = detail.truth;
      panels = chooseSets().map((set) => igvg.panel.create(data, set, image, detail));
      find("body").removeAttribute("aria-busy");
      find("panels").replaceChildren(...panels.map((panel) => panel.element));
      const instances = panels.map((panel) => makeInstances(data, panel, drawAll));
      find("facts").replaceChildren(makeOutcomes(data, index, panels), ...instances);
      fillSwitches();
      drawAll();
    }

    /** Show the expression at an index. */
    async function show(index) {
      current = index;
      if (!dialog.open) dialog.showModal();
      describe(index);
      find("body").setAttribute("aria-busy", "true");
      try {
        const detail = await igvg.details.load(index, data.details_size);
        if (current === index) fill(index, detail);
      } catch (error) {
        if (current !== index) return;
        panels = [];
        find("body").removeAttribute("aria-busy");
        find("facts").replaceChildren();
        const notice = igvg.elements.make("p", { class: "notice", role: "alert", text: error.message });
        find("panels").replaceChildren(notice);
      }
    }

    function step(by) {
      const items = listItems();
      const position = items.indexOf(current);
      const next = position < 0 ? 0 : position + by;
      if (next in items) goTo(items[next]);
    }

    function close() {
      current = null;
      if (dialog.open) dialog.close();
    }

    function press(event) {
      if (!dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
      const key = event.key.toLowerCase();
      const layer = igvg.layers.LAYERS.find(({ letter }) => letter === key);
      if (key === "arrowleft" || key === "k") step(-1);
      else if (key === "arrowright" || key === "j") step(1);
      else if (/^[1-9]$/.test(key)) toggleInstance(Number(key) - 1);
      else if (layer) toggleLayer(layer.key);
      else return;
      event.preventDefault();
    }

    find("previous").addEventListener("click", () => step(-1));
    find("next").addEventListener("click", () => step(1));
    find("close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      document.title = dialog.dataset.title;
      if (current !== null) onClose(current);
      current = null;
    });
    document.addEventListener("keydown", press);
    new ResizeObserver(drawAll).observe(find("body"));
    return { show, close, refresh: () => current !== null && show(current) };
  }

  return { connect };
})();
