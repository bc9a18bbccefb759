"use strict";

/* What is drawn over the thumbnails of the grid, as soon as their details are loaded and the browser has time. */

var igvg = globalThis.igvg ?? {};

igvg.thumbnails = (() => {
  const { make } = igvg.elements;
  // Milliseconds that must be left until the browser has to do something else: scrolling stays smooth.
  const LEAST_TIME = 3;
  const whenIdle = globalThis.requestIdleCallback ?? ((task) => setTimeout(task, 40));
  const BOX_RATIO = 4 / 3;
  const NAMES = {
    both: "Predictions and ground truth", predictions: "Predictions", truth: "Ground truth", image: "Images alone",
  };

  /** The layers that a choice shows; the merged mask stands in for masks of instances that were not kept. */
  function chooseLayers(choice, result) {
    const masks = result.instance_masks ? "instance-masks" : "mask";
    const [predictions, truth] = [[masks, "boxes"], ["truth-masks", "truth-boxes"]];
    return new Set({ both: [...predictions, "truth-boxes"], predictions, truth }[choice]);
  }

  /** A canvas that covers what an image fills of a box of 4:3. */
  function makeCanvas({ width, height }) {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const [across, down] = [Math.min(1, width / height / BOX_RATIO), Math.min(1, (BOX_RATIO * height) / width)];
    const place = { width: across, height: down, left: (1 - across) / 2, top: (1 - down) / 2 };
    for (const [name, share] of Object.entries(place)) canvas.style[name] = `${100 * share}%`;
    return canvas;
  }

  function connect(data) {
    const waiting = [];

    function drawSome(deadline) {
      do waiting.shift()();
      while (waiting.length && deadline?.timeRemaining() > LEAST_TIME);
      if (waiting.length) whenIdle(drawSome);
    }

    function enqueue(task) {
      if (!waiting.length) whenIdle(drawSome);
      waiting.push(task);
    }

    /** Draw over the thumbnail in `box` what `choice` (a key of `NAMES`) says about the expression at an index. */
    async function decorate(box, index, set, choice) {
      if (choice === "image") return;
      const at = data.image[index];
      const image = { width: data.images.width[at], height: data.images.height[at] };
      // The viewer says why details cannot be read.
      const detail = await igvg.details.load(index, data.details_size).catch(() => null);
      if (detail === null) return;
      enqueue(() => {
        if (!box.isConnected) return;
        const [result, canvas] = [detail.results[set], makeCanvas(image)];
        box.append(canvas);
        const view = { ...image, displayWidth: canvas.clientWidth, truth: detail.truth, result, compact: true };
        igvg.layers.draw(canvas, { ...view, shown: chooseLayers(choice, result) });
      });
    }

    return { decorate };
  }

  return { NAMES, connect };
})();
