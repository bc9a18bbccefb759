"use strict";

/* Requests to the server that the page came from. */

var igvg = globalThis.igvg ?? {};

igvg.api = (() => {
  const KEY = "igvg-serve-token";
  let token = null;
  /** Take the token out of the address, or that of an earlier visit in this tab. */
  function findToken() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) {
      history.replaceState(null, "", location.pathname);
      keepToken(given);
      return;
    }
    try {
      token = sessionStorage.getItem(KEY);
    } catch {
      // Storage is forbidden: the reader is asked.
    }
  }

  function keepToken(value) {
    token = value;
    try {
      sessionStorage.setItem(KEY, value);
    } catch {
      // The token then holds until the page is closed.
    }
  }

  /** Ask the reader for the token; several requests that need it wait for one answer. */
  let asking = null;
  function askForToken() {
    const dialog = document.getElementById("token-dialog");
    const input = document.getElementById("token");
    asking ??= new Promise((resolve) => {
      dialog.addEventListener("close", () => {
        asking = null;
        keepToken(input.value);
        input.value = "";
        resolve();
      }, { once: true });
      dialog.showModal();
    });
    return asking;
  }

  async function explain(response) {
    try {
      return (await response.json()).detail;
    } catch {
      return `the server answered ${response.status}`;
    }
  }

  /** A response of the server; errors carry its explanation and `status`. */
  async function request(path, options = {}) {
    for (;;) {
      const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
      let response;
      try {
        response = await fetch(path, { ...options, headers });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Error("the server cannot be reached; is igvg serve still running?");
      }
      if (response.ok) return response;
      if (response.status !== 401) throw Object.assign(new Error(await explain(response)), { status: response.status });
      await askForToken();
    }
  }

  function postSettings(path, settings, signal) {
    const headers = { "Content-Type": "application/json" };
    return request(path, { method: "POST", headers, body: JSON.stringify(settings), signal });
  }

  /** State, limits and defaults of the server. */
  async function readHealth() {
    return (await request("health")).json();
  }

  /** The answer for an image file and expressions. */
  async function predict(file, texts, settings, signal) {
    const form = new FormData();
    form.append("image", file);
    for (const text of texts) form.append("texts", text);
    for (const [name, value] of Object.entries(settings)) form.append(name, value);
    return (await request("predict", { method: "POST", body: form, signal })).json();
  }

  /** The answer of a kept result under other settings. */
  async function postprocess(id, settings, signal) {
    return (await postSettings(`results/${id}`, settings, signal)).json();
  }

  /** A file made of a kept result: `masks` or `masks/NUMBER`. */
  async function fetchFile(id, name, settings) {
    return (await postSettings(`results/${id}/${name}`, settings)).blob();
  }

  findToken();
  return { readHealth, predict, postprocess, fetchFile };
})();
