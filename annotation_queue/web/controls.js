// The controls around the video: playing, seeking, overlay, colour, brightness, zoom. For keys and buttons alike.

import { $, element } from "./dom.js";
import { toggleOthers } from "./objects.js";
import { desk, player } from "./screen.js";
import { session } from "./session.js";
import { MODES } from "./player.js";
import { switchTheme } from "./theme.js";

const MODE = "masklets.mode";
const COLOUR = "masklets.colour";

/** @param {number} by  positions */
export function step(by) {
  player.play(false);
  player.seek(player.position + by);
}

/** @param {1 | -1} direction  to the next or the previous suspect stretch */
export function toSuspect(direction) {
  const suspects = session.current?.timeline.suspects ?? [];
  const found = suspects.filter(({ position }) => (position - player.position) * direction > 0);
  const next = found.at(direction > 0 ? 0 : -1);
  if (next) step(next.position - player.position);
}

/** @param {string} mode  one of MODES */
function setMode(mode) {
  player.setMode(mode);
  localStorage.setItem(MODE, mode);
}

export function nextMode() {
  const offered = MODES.filter((mode) => mode !== "before" || desk.active);
  setMode(offered[(offered.indexOf(player.mode) + 1) % offered.length]);
}

/** @param {number} n */
function setColour(n) {
  player.choose(n);
  const swatch = $("colour").firstElementChild;
  if (swatch instanceof HTMLElement) swatch.style.background = `rgb(${player.colours.fill.join(" ")})`;
}

export function nextColour() {
  setColour(player.colour + 1);
  localStorage.setItem(COLOUR, String(player.colour));
}

/** @param {number} by */
export function brighten(by) {
  const slider = $("brightness", HTMLInputElement);
  slider.value = String(Number(slider.value) + by);
  player.brightness = Number(slider.value);
  player.refresh();
}

/** @param {boolean} on  whether dragging and the arrows move the picture */
export function setPanning(on) {
  player.panning = on;
  $("stage").classList.toggle("panning", on);
}

/** @param {boolean} hidden  the masks */
export function hideMasks(hidden) {
  player.setHidden(hidden);
  desk.paint();
}

$("play").addEventListener("click", () => player.play());
$("screen").addEventListener("click", () => !desk.active && !player.panning && player.play());
$("stage").addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    player.zoom(Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
  },
  { passive: false },
);
$("brightness").addEventListener("input", () => brighten(0));
$("speed").addEventListener("click", () => player.nextSpeed());
$("colour").addEventListener("click", nextColour);
$("previous-suspect").addEventListener("click", () => toSuspect(-1));
$("next-suspect").addEventListener("click", () => toSuspect(1));
$("others").addEventListener("click", toggleOthers);
$("theme").addEventListener("click", switchTheme);
for (const mode of MODES) {
  const label = mode[0].toUpperCase() + mode.slice(1);
  const properties = { value: mode, role: "radio", onclick: () => setMode(mode) };
  $("modes").append(element("button", { type: "button", ...properties }, label));
}

// After a click on a control, keys go to the work again. A control that is reached by Tab keeps them.
addEventListener("click", ({ detail, target }) => {
  if (detail === 0 || !(target instanceof Element) || !target.closest("button, a, summary")) return;
  if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
}, true);
addEventListener("pointerup", () => document.activeElement === $("brightness") && $("brightness").blur());

setColour(Number(localStorage.getItem(COLOUR) ?? 0));
const kept = localStorage.getItem(MODE) ?? "";
player.setMode(MODES.includes(kept) ? kept : "fill");
