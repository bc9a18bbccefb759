"use strict";

/* The image, and the layers of one expression over it. */

var igvg = globalThis.igvg ?? {};

igvg.stage = (() => {
  const { make } = igvg.elements;
  // CSS pixels. Small images are enlarged to this, where the screen allows.
  const LONG_SIDE = 960;
  // The part of the window's height that an image takes; narrow pages keep it in view above the controls.
  const SPACE = 0.78;
  const NARROW = matchMedia("(max-width: 60rem)");
  const NARROW_SPACE = 0.42;

  /** The width at which an image is shown in the space that there is. */
  function fitWidth(width, height, spaceWidth) {
    const longest = Math.max(LONG_SIDE, width, height) / Math.max(width, height);
    const spaceHeight = Math.max(200, (NARROW.matches ? NARROW_SPACE : SPACE) * innerHeight);
    return Math.max(40, Math.floor(width * Math.min(spaceWidth / width, spaceHeight / height, longest)));
  }

  /**
   * Let an element show images; `onFail()` is called for one that the browser cannot show.
   *
   * Has `open(file)`, `draw(answer, result, shown, hidden)`, and `clear()`, which leaves the image alone.
   */
  function connect(element, onFail) {
    const picture = make("img", { alt: "The chosen image", decoding: "async" });
    const canvas = make("canvas", { role: "img", "aria-label": "Layers over the image" });
    element.append(picture, canvas);
    let address = null;
    let size = null;

    function fit() {
      if (!size) return 0;
      const displayWidth = fitWidth(size.width, size.height, element.parentElement.clientWidth);
      element.style.width = `${displayWidth}px`;
      element.style.aspectRatio = `${size.width} / ${size.height}`;
      return displayWidth;
    }

    function clear() {
      canvas.width = canvas.height = 1;
    }

    picture.addEventListener("load", () => {
      size ??= { width: picture.naturalWidth, height: picture.naturalHeight };
      fit();
    });
    picture.addEventListener("error", () => {
      picture.hidden = true;
      onFail();
    });

    return {
      clear,
      open(file) {
        if (address) URL.revokeObjectURL(address);
        address = URL.createObjectURL(file);
        size = null;
        clear();
        picture.hidden = false;
        picture.src = address;
        element.hidden = false;
      },
      draw(answer, result, shown, hidden) {
        size = { width: answer.width, height: answer.height };
        const displayWidth = fit();
        igvg.layers.draw(canvas, { ...size, displayWidth, truth: null, result, shown, hidden });
      },
    };
  }

  return { connect };
})();
