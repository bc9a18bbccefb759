"use strict";

/* Where an image comes from: a drop anywhere on the page, the clipboard, or the file chooser. */

var igvg = globalThis.igvg ?? {};

igvg.imageInput = (() => {
  function pickImage(files) {
    const list = [...(files ?? [])];
    return list.find((file) => file.type.startsWith("image/")) ?? list[0];
  }

  /** Call `take(file)` for every image that the reader gives; `zone` is marked while one is dragged over the page. */
  function connect(zone, input, take) {
    const accept = (file) => file && take(file);
    input.addEventListener("change", () => {
      accept(pickImage(input.files));
      // The same file can then be chosen again.
      input.value = "";
    });
    document.addEventListener("paste", (event) => {
      const file = pickImage(event.clipboardData?.files);
      if (!file) return;
      event.preventDefault();
      accept(file);
    });
    let depth = 0;
    const mark = (change) => {
      depth = Math.max(0, depth + change);
      zone.classList.toggle("dragged-over", depth > 0);
    };
    document.addEventListener("dragenter", () => mark(1));
    document.addEventListener("dragleave", () => mark(-1));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      mark(-depth);
      accept(pickImage(event.dataTransfer?.files));
    });
  }

  return { connect };
})();
