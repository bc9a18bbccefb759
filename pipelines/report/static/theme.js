"use strict";

/* The button that switches between light and dark. Until it is used the page follows the reader's system. */

var igvg = globalThis.igvg ?? {};

igvg.theme = (() => {
  const KEY = "igvg-theme";

  /** What an earlier visit chose; storage may be forbidden, then nothing. */
  function readChoice() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  }

  function keepChoice(theme) {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // The choice then holds until the page is closed.
    }
  }

  function apply(theme) {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  }

  function isDark() {
    const { theme } = document.documentElement.dataset;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  /** Let a button switch the colors; its text names what it switches to. */
  function connect(button) {
    const label = button.querySelector("[data-label]");
    const update = () => (label.textContent = isDark() ? "Light colors" : "Dark colors");
    button.addEventListener("click", () => {
      const theme = isDark() ? "light" : "dark";
      apply(theme);
      keepChoice(theme);
      update();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
    update();
  }

  apply(readChoice());
  return { connect };
})();
