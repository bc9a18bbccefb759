"use strict";

/* What the viewer says about one expression beside its image: tables of outcomes and instances, and the switches. */

var igvg = globalThis.igvg ?? {};

igvg.facts = (() => {
  const { make, makeOutcome, formatIou, nameSet } = igvg.elements;
  const KINDS = { none: "no target", one: "one target", several: "several targets" };

  function makeHead(cells) {
    return make("thead", {}, make("tr", {}, ...cells.map((text) => make("th", { scope: "col", text }))));
  }

  function countInstances(count) {
    if (count === null) return "–";
    return count === 0 ? "no target" : count.toLocaleString("en");
  }

  /** A table with a column for each set: outcome, IoU, number of instances, existence. */
  function makeOutcomes(data, index, panels) {
    const columns = panels.map(({ set }) => data.results[set]);
    const rows = [
      ["Outcome", (column) => makeOutcome(column.outcome[index])],
      ["IoU, %", (column) => formatIou(column.iou[index])],
      ["Instances", (column) => countInstances(column.instances[index])],
      ["Existence", (column) => column.existence[index]?.toFixed(2) ?? "–"],
    ];
    const names = panels.map(({ set }) => (data.sets.length > 1 ? nameSet(set) : "Prediction"));
    const body = rows.map(([name, take]) => {
      const cells = columns.map((column) => make("td", {}, take(column)));
      return make("tr", {}, make("th", { scope: "row", text: name }), ...cells);
    });
    return make("table", { class: "facts" }, makeHead(["", ...names]), make("tbody", {}, ...body));
  }

  /** A row with a switch for each predicted instance of a panel. */
  function makeInstanceRow(panel, instance, redraw) {
    const color = igvg.layers.pickColor(instance);
    const label = `Show instance ${instance + 1}`;
    const input = make("input", { type: "checkbox", "data-instance": instance, "aria-label": label });
    input.checked = !panel.hidden.has(instance);
    input.addEventListener("change", () => {
      panel.hidden[input.checked ? "delete" : "add"](instance);
      redraw();
    });
    const number = make("span", { class: "number-tag", text: String(instance + 1) });
    number.style.background = color;
    number.style.color = igvg.layers.pickInk(color);
    const [x0, y0, x1, y1] = panel.result.boxes[instance];
    const share = ((100 * (x1 - x0) * (y1 - y0)) / panel.area).toFixed(1);
    const score = panel.result.scores?.[instance]?.toFixed(3) ?? "–";
    return make(
      "tr", {},
      make("td", {}, make("label", { class: "switch" }, input, number)),
      make("td", { class: "number", text: score }), make("td", { class: "number", text: share }),
    );
  }

  /** The predicted instances of a panel, each with a switch. */
  function makeInstances(data, panel, redraw) {
    const name = data.sets.length > 1 ? `Instances of ${nameSet(panel.set)}` : "Predicted instances";
    const rows = (panel.result.boxes ?? []).map((_, instance) => makeInstanceRow(panel, instance, redraw));
    if (!rows.length) return make("p", { class: "muted small", text: `${name}: none` });
    const numbers = ["Score", "Box, % of image"].map((text) => make("th", { scope: "col", class: "number", text }));
    const head = make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Shown" }), ...numbers));
    return make("table", { class: "instances" }, make("caption", { text: name }), head, make("tbody", {}, ...rows));
  }

  /** A switch for each layer, in the order of `LAYERS` from the top; those without contents say so. */
  function makeLayerSwitches(shown, details, onChange) {
    return igvg.layers.LAYERS.toReversed().map(({ key, name, letter }) => {
      const input = make("input", { type: "checkbox", value: key });
      input.checked = shown.has(key);
      input.addEventListener("change", () => onChange(key));
      const present = details.some(({ truth, result }) => igvg.layers.takeContents(key, truth, result).length);
      return make(
        "label", { class: present ? "layer" : "layer absent" },
        input, make("span", { class: `swatch swatch-${key}` }), make("span", { class: "layer-name", text: name }),
        make("span", { class: "layer-empty", text: present ? "" : "none" }),
        make("kbd", { text: letter, "aria-hidden": "true" }),
      );
    });
  }

  return { KINDS, makeOutcomes, makeInstances, makeLayerSwitches };
})();
