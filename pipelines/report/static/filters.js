"use strict";

/* Which expressions are shown, in which order, and how both stand in the page's address. */

var igvg = globalThis.igvg ?? {};

igvg.filters = (() => {
  const SORTS = ["order", "iou-up", "iou-down", "gain", "loss"];
  // What thumbnails show.
  const SHOWS = ["both", "predictions", "truth", "image"];

  /** Everything is shown, in the order of the shards; `set` is 0, 1 or "both". */
  function makeState() {
    const filters = { text: "", kinds: new Set(), outcomes: new Set(), differ: false };
    return { id: "", ...filters, sort: "order", set: "both", show: "both" };
  }

  function decode(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }

  /** What `#ID?text=…&kind=…&outcome=…&sort=…&set=…&differ=1&show=…` says, each part optional. */
  function parseHash(hash, numSets = 1) {
    const state = makeState();
    const [id, ...rest] = hash.replace(/^#/, "").split("?");
    const query = new URLSearchParams(rest.join("?"));
    const list = (name) => new Set((query.get(name) ?? "").split(",").filter(Boolean));
    state.id = decode(id);
    state.text = query.get("text") ?? "";
    state.kinds = list("kind");
    state.outcomes = list("outcome");
    if (SORTS.slice(0, numSets > 1 ? 5 : 3).includes(query.get("sort"))) state.sort = query.get("sort");
    if (numSets > 1 && ["0", "1"].includes(query.get("set"))) state.set = Number(query.get("set"));
    if (SHOWS.includes(query.get("show"))) state.show = query.get("show");
    state.differ = numSets > 1 && query.get("differ") === "1";
    return state;
  }

  /** The shortest address of a state; "#?" where it says nothing: "#" would scroll to the top. */
  function formatHash(state, id = state.id) {
    const query = new URLSearchParams();
    if (state.text) query.set("text", state.text);
    if (state.kinds.size) query.set("kind", [...state.kinds].join(","));
    if (state.outcomes.size) query.set("outcome", [...state.outcomes].join(","));
    if (state.sort !== "order") query.set("sort", state.sort);
    if (state.set !== "both") query.set("set", state.set);
    if (state.differ) query.set("differ", "1");
    if (state.show !== "both") query.set("show", state.show);
    const text = query.toString();
    return `#${encodeURIComponent(id.toWellFormed()).replaceAll("%2F", "/")}${text || !id ? `?${text}` : ""}`;
  }

  function fold(text) {
    return text.normalize("NFKC").toLowerCase();
  }

  /** Indices of the sets that a state looks at. */
  function chooseSets(data, set) {
    return set === "both" ? data.sets.map((_, index) => index) : [set];
  }

  /** How often each of a column's values occurs; an expression counts once for each value that any of the sets has. */
  function countValues(columns) {
    const counts = new Map();
    columns[0].forEach((_, index) => {
      const values = new Set(columns.map((column) => column[index]));
      for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    });
    return counts;
  }

  /** Compares the values of two indices; what has no value comes last. */
  function compareBy(values, sign) {
    return (a, b) => {
      if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
      return sign * (values[a] - values[b]) || a - b;
    };
  }

  function sortIndices(indices, data, state) {
    if (state.sort === "order") return indices;
    const iou = data.results.map((result) => result.iou);
    if (state.sort.startsWith("iou")) {
      const values = iou[state.set === "both" ? 0 : state.set];
      return indices.sort(compareBy(values, state.sort === "iou-up" ? 1 : -1));
    }
    const subtract = (b, a) => (a === null || b === null ? null : b - a);
    const gains = iou[0].map((value, index) => subtract(iou[1][index], value));
    return indices.sort(compareBy(gains, state.sort === "loss" ? 1 : -1));
  }

  /** Indices of the expressions that a state shows, in its order. All words of the text must occur, in any order. */
  function listMatches(data, state) {
    const words = fold(state.text).split(/\s+/).filter(Boolean);
    if (words.length && !data.folded) data.folded = data.text.map(fold);
    const outcomes = chooseSets(data, state.set).map((set) => data.results[set].outcome);
    const matches = [];
    for (let index = 0; index < data.id.length; index++) {
      if (state.kinds.size && !state.kinds.has(data.kind[index])) continue;
      if (state.outcomes.size && !outcomes.some((column) => state.outcomes.has(column[index]))) continue;
      if (state.differ && data.results[0].outcome[index] === data.results[1].outcome[index]) continue;
      if (words.every((word) => data.folded[index].includes(word))) matches.push(index);
    }
    return sortIndices(matches, data, state);
  }

  return { makeState, parseHash, formatHash, chooseSets, countValues, listMatches };
})();
