"use strict";

/* The gallery: filters, the grid of thumbnails and the viewer, all of which follow the page's address. */

var igvg = globalThis.igvg ?? {};

igvg.loadExpressions = (data) => {
  igvg.expressions = data;
};

igvg.gallery = (() => {
  const { make, makeOutcome, makeChip, formatIou, nameSet } = igvg.elements;
  const { parseHash, formatHash, chooseSets, countValues, listMatches } = igvg.filters;
  const OUTCOMES = [
    "correct", "loose mask", "extra instance", "lost instance", "wrong object", "false empty", "missed empty",
  ];
  const find = (id) => document.getElementById(id);

  let data = null;
  let state = null;
  let matches = [];
  let grid = null;
  let viewer = null;
  let thumbnails = null;
  // Whether Back leads from the viewer to the gallery.
  let openedHere = false;

  function makeResultLine(set, index) {
    const { outcome, iou } = data.results[set];
    const letter = data.sets.length > 1 ? [make("span", { class: "set-letter", text: nameSet(set) })] : [];
    const name = make("span", { class: "iou-name", text: "IoU " });
    const value = make("span", { class: "iou" }, name, formatIou(iou[index]));
    return make("span", { class: "result" }, ...letter, makeOutcome(outcome[index]), value);
  }

  function makeTile(index) {
    const image = data.image[index];
    const file = data.images.file[image];
    const thumbnail = make("img", { src: `thumbnails/${file}`, alt: "", loading: "lazy", decoding: "async" });
    const box = make("span", { class: "tile-image" }, thumbnail);
    thumbnails.decorate(box, index, state.set === "both" ? 0 : state.set, state.show);
    return make(
      "li", { class: "tile", role: "listitem" },
      make(
        "a", { href: formatHash(state, data.id[index]) },
        box,
        make("span", { class: "tile-text", dir: "auto", text: data.text[index] }),
        ...chooseSets(data, state.set).map((set) => makeResultLine(set, index)),
      ),
    );
  }

  /** Chips for the values that occur, with how often. */
  function fillChips(fieldset, name, values, labels, chosen) {
    const columns = chooseSets(data, state.set).map((set) => (name === "kind" ? data.kind : data.results[set].outcome));
    const counts = countValues(columns);
    const present = [...values, ...[...counts.keys()].filter((value) => !values.includes(value))];
    const chips = present.map((value) => {
      const chip = makeChip("checkbox", name, value, labels(value), counts.get(value) ?? 0);
      chip.querySelector("input").checked = chosen.has(value);
      return chip;
    });
    fieldset.querySelector(".row").replaceChildren(...chips);
  }

  function fillSorts() {
    const which = data.sets.length > 1 ? ` of ${nameSet(state.set === "both" ? 0 : state.set)}` : "";
    const byIou = [["iou-up", `IoU${which}, lowest first`], ["iou-down", `IoU${which}, highest first`]];
    const sorts = [["order", "Order of the shards"], ...byIou];
    if (data.sets.length > 1) sorts.push(["gain", "B better than A first"], ["loss", "A better than B first"]);
    find("sort").replaceChildren(...sorts.map(([value, text]) => make("option", { value, text })));
    find("sort").value = state.sort;
  }

  function fillShows() {
    // A thumbnail has space for the predictions of one set.
    const which = data.sets.length > 1 ? ` of ${nameSet(state.set === "both" ? 0 : state.set)}` : "";
    const options = Object.entries(igvg.thumbnails.NAMES).map(([value, name]) => {
      return make("option", { value, text: name.replace("Predictions", `Predictions${which}`) });
    });
    find("show").replaceChildren(...options);
    find("show").value = state.show;
  }

  function fillControls() {
    if (find("search").value !== state.text) find("search").value = state.text;
    fillChips(find("kinds"), "kind", ["none", "one", "several"], (kind) => kind, state.kinds);
    fillChips(find("outcomes"), "outcome", OUTCOMES, makeOutcome, state.outcomes);
    fillSorts();
    fillShows();
    for (const input of document.querySelectorAll("input[name=set]")) input.checked = input.value === String(state.set);
    find("differ").checked = state.differ;
  }

  function fillSets() {
    find("sets").hidden = data.sets.length < 2;
    const names = data.sets.map((name, set) => makeChip("radio", "set", set, `${nameSet(set)}: ${name}`));
    find("sets").querySelector(".row").prepend(makeChip("radio", "set", "both", "Both"), ...names);
  }

  /** The state that the controls say. */
  function readControls() {
    const list = (name) => {
      const checked = [...document.querySelectorAll(`input[name=${name}]:checked`)];
      return new Set(checked.map((input) => input.value));
    };
    const [set] = list("set");
    return {
      ...state,
      text: find("search").value.trim(),
      kinds: list("kind"),
      outcomes: list("outcome"),
      sort: find("sort").value,
      set: set === undefined || set === "both" ? "both" : Number(set),
      differ: find("differ").checked,
      show: find("show").value,
    };
  }

  function showMatches() {
    matches = listMatches(data, state);
    const [count, total] = [matches.length.toLocaleString("en"), data.id.length.toLocaleString("en")];
    find("result-count").textContent = matches.length === data.id.length
      ? `${total} expressions`
      : `${count} of ${total} expressions`;
    find("no-matches").hidden = matches.length > 0;
    find("grid").classList.toggle("two-lines", chooseSets(data, state.set).length > 1);
    grid.show(matches);
  }

  function changeControls() {
    const focused = document.activeElement;
    const set = state.set;
    state = readControls();
    // Chips count the chosen set; those that have the focus stay where they are otherwise.
    if (set !== state.set) {
      fillControls();
      if (focused.name) document.querySelector(`input[name="${focused.name}"][value="${focused.value}"]`)?.focus();
    }
    showMatches();
    igvg.address.replace(formatHash(state));
  }

  function clearFilters() {
    state = { ...igvg.filters.makeState(), set: state.set, show: state.show };
    fillControls();
    showMatches();
    igvg.address.replace(formatHash(state));
    find("search").focus();
  }

  function isSame(one, other) {
    return formatHash(one, "") === formatHash(other, "");
  }

  /** Follow the page's address. */
  function route() {
    const said = parseHash(location.hash, data.sets.length);
    const index = data.positions.get(said.id) ?? -1;
    // An anchor of the page, as in its links to sections.
    if (said.id && index < 0 && find(said.id)) return viewer.close();
    const changed = !state || !isSame(said, state);
    state = { ...said, id: "" };
    if (changed) {
      fillControls();
      showMatches();
    }
    find("unknown-id").hidden = !said.id || index >= 0;
    if (said.id && index < 0) {
      find("unknown-id").textContent = `The gallery has no expression with the id ${said.id}`;
      find("unknown-id").scrollIntoView({ block: "center", behavior: "instant" });
    }
    return index >= 0 ? viewer.show(index) : viewer.close();
  }

  function goTo(index) {
    viewer.show(index);
    igvg.address.replace(formatHash(state, data.id[index]));
  }

  function leaveViewer(index) {
    igvg.address.cancel();
    if (openedHere) history.back();
    else igvg.address.replace(formatHash(state, ""));
    openedHere = false;
    grid.reveal(matches.indexOf(index));
  }

  function connectControls() {
    find("filters").addEventListener("input", changeControls);
    find("filters").addEventListener("submit", (event) => event.preventDefault());
    find("clear").addEventListener("click", clearFilters);
    find("grid").addEventListener("click", (event) => {
      if (event.target.closest("a") && !event.ctrlKey && !event.metaKey && !event.shiftKey) openedHere = true;
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || find("viewer").open || event.target.matches("input[type=search], textarea")) return;
      event.preventDefault();
      find("search").focus();
      find("search").select();
    });
  }

  /** Show what data/expressions.js holds. */
  function start() {
    igvg.theme.connect(find("theme"));
    // The report of a training alone has no gallery.
    if (!find("gallery")) return;
    data = igvg.expressions;
    if (!data) {
      find("no-data").hidden = false;
      return;
    }
    // Addresses hold no lone surrogates.
    data.positions = new Map(data.id.map((id, index) => [id.toWellFormed(), index]));
    fillSets();
    thumbnails = igvg.thumbnails.connect(data);
    grid = igvg.grid.connect(find("grid"), makeTile);
    viewer = igvg.viewer.connect(find("viewer"), data, {
      listItems: () => matches, chooseSets: () => chooseSets(data, state.set), goTo, onClose: leaveViewer,
    });
    connectControls();
    // The viewer brings back the tile that it was opened from, or went on to.
    history.scrollRestoration = "manual";
    find("gallery").hidden = false;
    route();
    igvg.address.onChange(route);
  }

  return { start };
})();
