// The menu “View” above the time line: sliders for how masks and pictures look. The browser keeps what a person chose.

import { keep, keptNumber } from "./choices.js";
import { $ } from "../shared/dom.js";
import { player, strip } from "./screen.js";
import { session } from "../shared/session.js";

const GAP = 8; // px, between the menu and its button
const BRIGHTER = 0.1;
const DENSER = 0.2;

/**
 * A slider and the number beside it.
 * @param {string} id
 * @param {number} begin
 * @param {(value: number) => void} use  what another value changes
 * @param {{keeps?: boolean, write?: (value: number) => string}} [how]  whether the browser keeps it, in the slider's bounds
 */
function slider(id, begin, use, { keeps = false, write = (value) => `${Math.round(100 * value)} %` } = {}) {
  const input = $(id, HTMLInputElement);
  const shown = input.parentElement?.querySelector("output");
  const show = () => {
    if (shown) shown.textContent = write(Number(input.value));
    use(Number(input.value));
  };
  const choose = () => {
    if (keeps) keep(id, Number(input.value));
    show();
  };
  const bounds = { least: Number(input.min), most: Number(input.max), usual: begin };
  input.value = String(keeps ? keptNumber(id, bounds) : begin);
  input.addEventListener("input", choose);
  show();
  return {
    /** @param {number} value  a person wants this one; it is moved into the slider's bounds */
    set(value) {
      input.value = String(value);
      choose();
    },
    get value() {
      return Number(input.value);
    },
  };
}

const brightness = slider("brightness", player.brightness, (value) => {
  player.brightness = value;
  player.refresh();
});

const opacity = slider("opacity", player.opacity, (value) => {
  player.opacity = value;
  player.refresh();
}, { keeps: true });

const threshold = slider("threshold", session.lowScore, (value) => session.doubtBelow(value), {
  keeps: true,
  write: (value) => value.toFixed(2),
});
strip.onthreshold = (score) => threshold.set(score);

/** @param {1 | -1} direction */
export const brighten = (direction) => brightness.set(brightness.value + direction * BRIGHTER);

/** Make masks denser; after the most opaque ones, transparent again. */
export const nextOpacity = () => opacity.set(opacity.value > 0.99 ? 0 : opacity.value + DENSER);

// The menu is above everything else, and therefore placed by hand: over its button, inside of the window.
function place() {
  const menu = $("view-menu");
  if (!menu.matches(":popover-open")) return;
  const [button, box] = [$("view").getBoundingClientRect(), menu.getBoundingClientRect()];
  const large = Number(getComputedStyle(menu).getPropertyValue("--large")) || 1; // a zoom applies to `left` and `top` too
  menu.style.left = `${Math.max(GAP, Math.min(button.left, innerWidth - box.width - GAP)) / large}px`;
  const controls = $("view").parentElement?.getBoundingClientRect() ?? button; // the menu covers none of them
  menu.style.top = `${Math.max(GAP, controls.top - box.height - 2 * GAP) / large}px`;
}
$("view-menu").addEventListener("toggle", place);
addEventListener("resize", place);

/** Close the menu. True if it was open. */
export function closeViewMenu() {
  const menu = $("view-menu");
  const open = menu.matches(":popover-open");
  const { activeElement } = document;
  if (open && activeElement instanceof HTMLElement && menu.contains(activeElement)) activeElement.blur(); // the browser does it later
  if (open) menu.hidePopover();
  return open;
}
session.on("view", closeViewMenu);
