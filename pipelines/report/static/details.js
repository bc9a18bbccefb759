"use strict";

/*
 * What layers draw, in files of many expressions each, loaded when the first of them is shown. Browsers refuse fetch()
 * for file://, but not scripts: a file calls igvg.loadDetails(chunk, list).
 */

var igvg = globalThis.igvg ?? {};

igvg.details = (() => {
  // Chunks that are kept at most; the one that was not used for longest is dropped.
  const KEPT = 60;
  const chunks = new Map();

  function nameFile(chunk) {
    return `data/details-${String(chunk).padStart(4, "0")}.js`;
  }

  function startLoading(chunk) {
    const entry = {};
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    chunks.set(chunk, entry);
    const script = document.createElement("script");
    script.src = nameFile(chunk);
    // A damaged file is loaded, but gives nothing.
    const finish = () => {
      script.remove();
      if (entry.received) return;
      chunks.delete(chunk);
      const expected = "expected beside this page, as igvg report wrote it";
      entry.reject(new Error(`${nameFile(chunk)} could not be read: ${expected}`));
    };
    script.addEventListener("error", finish);
    script.addEventListener("load", finish);
    document.head.append(script);
    return entry;
  }

  igvg.loadDetails = (chunk, list) => {
    const entry = chunks.get(chunk);
    if (!entry) return;
    entry.received = true;
    entry.resolve(list);
  };

  function dropOldest() {
    if (chunks.size <= KEPT) return;
    for (const [chunk, { loaded }] of chunks) if (loaded) return chunks.delete(chunk);
  }

  /** The details of the expression at an index; a promise. */
  async function load(index, detailsSize) {
    const chunk = Math.floor(index / detailsSize);
    const entry = chunks.get(chunk) ?? startLoading(chunk);
    chunks.delete(chunk);
    chunks.set(chunk, entry);
    const list = await entry.promise;
    entry.loaded = true;
    dropOldest();
    return list[index % detailsSize];
  }

  return { load };
})();
