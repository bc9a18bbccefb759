"use strict";

/* The page of igvg serve: an image and expressions go to the server, and its answer is shown. */

var igvg = globalThis.igvg ?? {};

(() => {
  const { make, makeChip } = igvg.elements;
  const find = (id) => document.getElementById(id);
  // Masks are drawn at this size at most; downloads have that of the image.
  const MAX_SIDE = 1280;
  const LAYERS = igvg.layers.LAYERS.filter(({ key }) => !key.startsWith("truth-"));
  const shown = new Set(LAYERS.filter((layer) => layer.shown).map(({ key }) => key));
  const hidden = new Set();
  let health = null;
  let file = null;
  let answer = null;
  let selected = 0;
  let running = null;
  // Whether settings have changed since the answer was asked for.
  let stale = false;

  const settings = igvg.settings.connect(find("settings"), changeSettings);
  const stage = igvg.stage.connect(find("stage"), () => {
    find("file-name").textContent = `${file.name}: this browser cannot show it, the server may read it all the same`;
  });

  function showProblem(text) {
    find("problem").textContent = text;
    find("problem").hidden = !text;
  }

  function say(text) {
    find("status").textContent = text;
  }

  function listTexts() {
    return find("texts").value.split("\n").map((line) => line.trim()).filter((line) => line);
  }

  function takeImage(given) {
    const most = health?.limits.upload_bytes ?? Infinity;
    // The form around the image takes some bytes, too.
    if (given.size > most - 4096 * 4) {
      showProblem(`${given.name}: the server takes at most ${Math.floor(most / 1048576)} MiB`);
      return;
    }
    running?.abort();
    file = given;
    showAnswer(null);
    showProblem("");
    say("");
    find("invitation").hidden = true;
    find("file-name").textContent = given.name;
    stage.open(given);
    if (listTexts().length) predict();
  }

  function findMissing(texts) {
    if (!file) return "Choose an image first.";
    if (!texts.length) return "Say what to look for.";
    const { expressions: most, expression_characters: longest } = health?.limits ?? {};
    if (texts.length > most) return `The server takes at most ${most} expressions at a time.`;
    // The server counts code points.
    if (texts.some((text) => [...text].length > longest)) return `An expression has at most ${longest} characters.`;
    return "";
  }

  function capitalize(text) {
    return text.charAt(0).toUpperCase() + text.slice(1);
  }

  /** Run some work that a later one replaces; what it throws is shown. */
  async function work(what) {
    running?.abort();
    const controller = (running = new AbortController());
    document.body.setAttribute("aria-busy", "true");
    try {
      await what(controller.signal);
    } catch (error) {
      if (running !== controller || error.name === "AbortError") return;
      say("");
      showProblem(capitalize(error.message));
    } finally {
      if (running === controller) {
        running = null;
        document.body.removeAttribute("aria-busy");
      }
    }
  }

  async function askNetwork(texts, signal) {
    stale = false;
    return igvg.api.predict(file, texts, { ...settings.read(), max_side: MAX_SIDE }, signal);
  }

  async function predict() {
    const texts = listTexts();
    const missing = findMissing(texts);
    showProblem(missing);
    if (missing) return;
    await work(async (signal) => {
      say("Finding …");
      const start = performance.now();
      showAnswer(await askNetwork(texts, signal));
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      say(`${texts.length} ${texts.length === 1 ? "expression" : "expressions"} in ${seconds} s`);
      await catchUp(signal);
    });
  }

  /** Bring the answer up to the present settings; the network runs only if the server no longer keeps its outputs. */
  async function catchUp(signal) {
    while (stale) {
      stale = false;
      try {
        showAnswer(await igvg.api.postprocess(answer.id, { ...settings.read(), max_side: MAX_SIDE }, signal), true);
      } catch (error) {
        if (error.status !== 404) throw error;
        showAnswer(await askNetwork(answer.results.map(({ text }) => text), signal), true);
      }
    }
  }

  function changeSettings() {
    stale = true;
    if (!answer || running) return;
    showProblem("");
    work(catchUp);
  }

  /** Show an answer; `again`: to the same image and expressions, under other settings. */
  function showAnswer(given, again = false) {
    answer = given;
    for (const id of ["answers", "result", "layers-card"]) find(id).hidden = !answer;
    if (!again) {
      selected = 0;
      hidden.clear();
    }
    if (answer) {
      showChips();
      showSelected();
    } else {
      stage.clear();
      find("notes").replaceChildren();
    }
  }

  function countInstances({ no_target: none, boxes }) {
    if (none) return "no target";
    return boxes.length === 1 ? "1 instance" : `${boxes.length} instances`;
  }

  function showChips() {
    const place = find("answers");
    const focused = place.contains(document.activeElement);
    const chips = answer.results.map((result, index) => {
      const chip = makeChip("radio", "answer", String(index), make("span", { dir: "auto", text: result.text }));
      chip.append(make("span", { class: "count", text: countInstances(result) }));
      const input = chip.querySelector("input");
      input.checked = index === selected;
      input.addEventListener("change", () => select(index));
      return chip;
    });
    place.replaceChildren(place.firstElementChild, ...chips);
    if (focused) place.querySelector(":checked").focus();
  }

  function select(index) {
    if (!(index in answer.results)) return;
    selected = index;
    hidden.clear();
    find("answers").querySelectorAll("input")[index].checked = true;
    showSelected();
  }

  function listNotes(result) {
    if (!result.no_target) return [];
    const notes = [make("p", { class: "note", text: "No target" })];
    if (igvg.masks.countPixels(result.mask)) {
      notes.push(make("p", { class: "small muted", text: "The merged mask has pixels all the same." }));
    }
    return notes;
  }

  function showSelected() {
    const result = answer.results[selected];
    find("result-heading").textContent = result.text;
    find("notes").replaceChildren(...listNotes(result));
    const panel = { set: 0, hidden, result, area: answer.width * answer.height };
    const existence = make("p", { text: `Existence ${result.existence.toFixed(2)}` });
    find("facts").replaceChildren(existence, igvg.facts.makeInstances({ sets: ["igvg"] }, panel, draw));
    showLayers();
    draw();
  }

  function showLayers() {
    const details = [{ truth: null, result: answer.results[selected] }];
    const switches = igvg.facts.makeLayerSwitches(shown, details, toggleLayer);
    find("layers").replaceChildren(
      ...switches.filter((element) => LAYERS.some(({ key }) => key === element.querySelector("input").value)),
    );
  }

  function draw() {
    if (answer) stage.draw(answer, answer.results[selected], shown, hidden);
  }

  function toggleLayer(key) {
    shown[shown.has(key) ? "delete" : "add"](key);
    find("layers").querySelector(`input[value="${key}"]`).checked = shown.has(key);
    draw();
  }

  function toggleInstance(index) {
    find("facts").querySelector(`input[data-instance="${index}"]`)?.click();
  }

  function press(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !find("token-dialog").open) {
      predict();
      event.preventDefault();
      return;
    }
    const typing = event.target.closest?.("textarea, select, input:not([type=checkbox], [type=radio], [type=range])");
    if (!answer || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const layer = LAYERS.find(({ letter }) => letter === key);
    if (key === "j" || key === "k") select(selected + (key === "j" ? 1 : -1));
    else if (/^[1-9]$/.test(key)) toggleInstance(Number(key) - 1);
    else if (layer) toggleLayer(layer.key);
    else return;
    event.preventDefault();
  }

  function save(blob, name) {
    const address = URL.createObjectURL(blob);
    make("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  /** Offer what `fetchBlob(id, settings)` gives as a file named after the image. */
  async function download(fetchBlob, ending) {
    const { id, settings: used } = answer;
    const name = (file.name || "image").replace(/\.[^.]*$/, "");
    showProblem("");
    try {
      save(await fetchBlob(id, used), `${name}${ending}`);
    } catch (error) {
      showProblem(capitalize(error.message));
    }
  }

  async function fetchJson(id, used) {
    const full = await igvg.api.postprocess(id, used);
    return new Blob([JSON.stringify(full, null, 1)], { type: "application/json" });
  }

  async function start() {
    try {
      health = await igvg.api.readHealth();
    } catch (error) {
      showProblem(capitalize(error.message));
      return;
    }
    const { limits, parameters, version } = health;
    const megapixels = limits.image_pixels / 1e6;
    find("limits").textContent =
      `At most ${Math.floor(limits.upload_bytes / 1048576)} MiB and ${megapixels} megapixels. It stays on the server's machine.`;
    find("network").textContent = `igvg ${version} · ${(parameters / 1e6).toFixed(1)} million parameters`;
    settings.write(health.defaults);
    find("settings-card").hidden = false;
  }

  igvg.theme.connect(find("theme"));
  find("invitation").addEventListener("click", () => find("file").click());
  igvg.imageInput.connect(find("drop"), find("file"), takeImage);
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  find("reset").addEventListener("click", () => {
    if (!health) return;
    settings.write(health.defaults);
    changeSettings();
  });
  find("download-mask").addEventListener("click", () => {
    const number = selected + 1;
    download((id, used) => igvg.api.fetchFile(id, `masks/${number}`, used), `-mask-${number}.png`);
  });
  find("download-masks").addEventListener("click", () =>
    download((id, used) => igvg.api.fetchFile(id, "masks", used), "-masks.zip"),
  );
  find("download-json").addEventListener("click", () => download(fetchJson, ".json"));
  document.addEventListener("keydown", press);
  new ResizeObserver(draw).observe(find("drop"));
  start();
})();
