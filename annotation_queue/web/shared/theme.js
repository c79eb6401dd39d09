// Light or dark, and the colours of the style sheet for what is drawn on a canvas.

import { $, element } from "./dom.js";
import { session } from "./session.js";

const KEPT = "masklets.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
/** @type {Map<string, string>} */
const known = new Map();

/**
 * A custom property as a colour that canvas understands, in the theme that is on.
 * @param {string} name
 */
export function colour(name) {
  const probe = $("theme");
  const key = `${name} ${document.documentElement.dataset.theme ?? ""} ${dark.matches}`;
  let found = known.get(key);
  if (found === undefined) {
    const shown = element("i");
    shown.style.color = `var(${name})`;
    probe.append(shown);
    found = getComputedStyle(shown).color;
    known.set(key, found);
    shown.remove();
  }
  return found;
}

export function switchTheme() {
  const root = document.documentElement;
  const isDark = getComputedStyle(root).colorScheme === "dark" || (!root.dataset.theme && dark.matches);
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem(KEPT, root.dataset.theme);
  session.emit("theme");
}

/** The theme that the person chose at this browser, if they chose one. */
export function keptTheme() {
  const theme = localStorage.getItem(KEPT);
  if (theme) document.documentElement.dataset.theme = theme;
  session.emit("theme");
}

dark.addEventListener("change", () => session.emit("theme"));
