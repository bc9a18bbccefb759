"use strict";

/* The part of the page's address after "#", written a little later than it changes: browsers slow pages down that
   change it at every key press. */

var igvg = globalThis.igvg ?? {};

igvg.address = (() => {
  const DELAY = 150;
  let timer = 0;
  // Changes made here of which the browser has not told yet.
  let own = 0;
  const followers = [];

  function write(hash) {
    timer = 0;
    if (hash === location.hash) return;
    own += 1;
    location.replace(hash);
  }

  /** Replace the part after "#", without an entry in the history. */
  function replace(hash) {
    clearTimeout(timer);
    timer = setTimeout(write, DELAY, hash);
  }

  /** Forget what was to be written: the reader has gone elsewhere. */
  function cancel() {
    clearTimeout(timer);
    timer = 0;
  }

  /** Call `follow` when the reader changes the address, by a link, by Back, or by hand. */
  function onChange(follow) {
    followers.push(follow);
  }

  addEventListener("hashchange", () => {
    if (own > 0) {
      own -= 1;
      return;
    }
    cancel();
    for (const follow of followers) follow();
  });

  return { replace, cancel, onChange };
})();
