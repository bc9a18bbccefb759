"use strict";

/* The controls of post-processing. */

var igvg = globalThis.igvg ?? {};

igvg.settings = (() => {
  const { make } = igvg.elements;
  const SOURCES = { merge: "instances and global", instance: "instances", global: "global" };
  const CONTROLS = [
    { key: "score_threshold", kind: "range", name: "Score threshold", help: "Queries that score above it are instances." },
    { key: "mask_threshold", kind: "range", name: "Mask threshold", help: "Pixels of at least this probability are inside." },
    { key: "mask_source", kind: "select", name: "Merged mask from" },
    { key: "existence_weighting", kind: "checkbox", name: "Weight scores with existence" },
    { key: "nms", kind: "checkbox", name: "Non-maximum suppression" },
    { key: "nms_iou", kind: "range", name: "NMS IoU", help: "Boxes that overlap a better one by more are dropped." },
  ];

  function makeRange({ key, name, help }) {
    const id = `setting-${key}`;
    const input = make("input", { type: "range", id, min: 0, max: 1, step: 0.01, "aria-describedby": `${id}-help` });
    const output = make("output", { for: id });
    const head = make("div", { class: "setting-head" }, make("label", { for: id, text: name }), output);
    const element = make("div", { class: "setting" }, head, input, make("p", { class: "small muted", id: `${id}-help`, text: help }));
    return { element, input, read: () => Number(input.value), write: (value) => (input.value = value), output };
  }

  function makeSelect({ key, name }) {
    const id = `setting-${key}`;
    const options = Object.entries(SOURCES).map(([value, text]) => make("option", { value, text }));
    const input = make("select", { class: "field", id }, ...options);
    const element = make("div", { class: "setting" }, make("label", { class: "label", for: id, text: name }), input);
    return { element, input, read: () => input.value, write: (value) => (input.value = value) };
  }

  function makeCheckbox({ key, name }) {
    const input = make("input", { type: "checkbox", id: `setting-${key}` });
    const element = make("label", { class: "setting layer" }, input, make("span", { text: name }));
    return { element, input, read: () => input.checked, write: (value) => (input.checked = value) };
  }

  const MAKERS = { range: makeRange, select: makeSelect, checkbox: makeCheckbox };

  /** Put the controls into an element; `onChange()` is called after every change. Has `read()` and `write(values)`. */
  function connect(place, onChange) {
    const controls = CONTROLS.map((control) => ({ key: control.key, ...MAKERS[control.kind](control) }));
    const byKey = Object.fromEntries(controls.map((control) => [control.key, control]));

    function update() {
      for (const { input, output } of controls) if (output) output.textContent = Number(input.value).toFixed(2);
      byKey.nms_iou.input.disabled = !byKey.nms.input.checked;
      byKey.nms_iou.element.classList.toggle("absent", !byKey.nms.input.checked);
    }

    for (const { element, input } of controls) {
      input.addEventListener("input", () => {
        update();
        onChange();
      });
      place.append(element);
    }
    update();
    return {
      read: () => Object.fromEntries(controls.map(({ key, read }) => [key, read()])),
      write(values) {
        for (const { key, write } of controls) write(values[key]);
        update();
      },
    };
  }

  return { connect };
})();
