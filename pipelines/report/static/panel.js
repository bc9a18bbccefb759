"use strict";

/* One result in the viewer: the image, and the canvas with layers over it. */

var igvg = globalThis.igvg ?? {};

igvg.panel = (() => {
  const { make, nameSet } = igvg.elements;
  // CSS pixels. Small images are enlarged to this, where the screen allows.
  const LONG_SIDE = 960;

  /** The width at which an image is shown in the space that there is. */
  function fitWidth({ width, height }, spaceWidth, spaceHeight) {
    const longest = Math.max(LONG_SIDE, width, height) / Math.max(width, height);
    return Math.max(40, Math.floor(width * Math.min(spaceWidth / width, spaceHeight / height, longest)));
  }

  function predictsNothing({ boxes, mask }) {
    return !boxes?.length && (!mask || !igvg.masks.countPixels(mask));
  }

  function listNotes(truth, result) {
    const notes = [];
    if (!truth.boxes.length) notes.push(make("p", { class: "note truth", text: "Ground truth: no target" }));
    if (predictsNothing(result)) notes.push(make("p", { class: "note", text: "Prediction: no target" }));
    return notes;
  }

  /**
   * The panel of one set's result.
   *
   * `image` has `file`, `name`, `width` and `height`. The result has `element`, `hidden` (indices of instances that
   * are left out) and `draw(shown, spaceHeight)`.
   */
  function create(data, set, image, { truth, results }) {
    const result = results[set];
    const picture = make("img", { src: `images/${image.file}`, alt: `Image ${image.name}`, decoding: "async" });
    const canvas = make("canvas", { role: "img", "aria-label": `Layers over the image, ${data.sets[set]}` });
    const stage = make("div", { class: "stage" }, picture, canvas);
    picture.addEventListener("error", () => {
      stage.prepend(make("p", { class: "notice", role: "alert", text: `images/${image.file} could not be read` }));
    });
    const title = make("h3", { class: "panel-name" });
    if (data.sets.length > 1) title.append(make("span", { class: "set-letter", text: nameSet(set) }), " ");
    title.append(data.sets[set]);
    const notes = make("div", { class: "notes" }, ...listNotes(truth, result));
    const element = make("section", { class: "panel", "aria-label": data.sets[set] }, title, stage, notes);
    const hidden = new Set();

    function draw(shown, spaceHeight) {
      const displayWidth = fitWidth(image, element.clientWidth, spaceHeight);
      stage.style.width = `${displayWidth}px`;
      stage.style.aspectRatio = `${image.width} / ${image.height}`;
      const { width, height } = image;
      igvg.layers.draw(canvas, { width, height, displayWidth, truth, result, shown, hidden });
    }

    return { element, set, result, hidden, area: image.width * image.height, draw };
  }

  return { create };
})();
