"use strict";

/*
 * What layers draw, in files of many expressions each, loaded when the first of them is shown. Browsers refuse fetch()
 * for file://, but not scripts: a file calls igvg.loadDetails(chunk, list).
 */

var igvg = globalThis.igvg ?? {};

igvg.details = (() => {
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
    script.addEventListener("error", () => {
      chunks.delete(chunk);
      entry.reject(new Error(`${nameFile(chunk)} could not be read: expected beside this page, as igvg report wrote it`));
    });
    script.addEventListener("load", () => script.remove());
    document.head.append(script);
    return entry;
  }

  igvg.loadDetails = (chunk, list) => {
    if (!chunks.has(chunk)) chunks.set(chunk, { promise: Promise.resolve(list) });
    chunks.get(chunk).resolve?.(list);
  };

  /** The details of the expression at an index; a promise. */
  async function load(index, detailsSize) {
    const chunk = Math.floor(index / detailsSize);
    const list = await (chunks.get(chunk) ?? startLoading(chunk)).promise;
    return list[index % detailsSize];
  }

  return { load };
})();
