"use strict";

/* Elements made by hand. Text becomes a text node, so that expressions that look like HTML are shown as they are. */

var igvg = globalThis.igvg ?? {};

igvg.elements = (() => {
  /** An element with attributes (`text` is its text) and children; attributes that are null or false are left out. */
  function make(tag, { text, ...attributes } = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    if (text !== undefined) element.textContent = text;
    element.append(...children);
    return element;
  }

  /** An outcome with a mark whose shape and color differ from those of the others. */
  function makeOutcome(outcome) {
    return make("span", { class: "outcome", "data-outcome": outcome }, make("span", { class: "mark" }), outcome);
  }

  /** A checkbox or radio button that looks like a button. */
  function makeChip(type, name, value, label, count) {
    const input = make("input", { type, name, value });
    const content = typeof label === "string" ? make("span", { text: label }) : label;
    const number = count === undefined ? [] : [make("span", { class: "count", text: count.toLocaleString("en") })];
    return make("label", { class: "chip" }, input, content, ...number);
  }

  /** "IoU 43.2", or that there is none. */
  function formatIou(iou) {
    return iou === null ? "–" : iou.toFixed(1);
  }

  /** "A", "B": what a set of predictions is called where its name is too long. */
  function nameSet(set) {
    return String.fromCharCode(65 + set);
  }

  return { make, makeOutcome, makeChip, formatIou, nameSet };
})();
