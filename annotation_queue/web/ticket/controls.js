// The controls around the video: playing, seeking, overlay, colour, brightness, zoom. For keys and buttons alike.

import { isSized, resizeBrush } from "./brush_size.js";
import { $, element } from "../shared/dom.js";
import { toggleOthers } from "./objects.js";
import { notice } from "./messages.js";
import { desk, player } from "./screen.js";
import { session } from "../shared/session.js";
import { MODES } from "../canvas/player.js";
import { switchTheme } from "../shared/theme.js";

const MODE = "masklets.mode";
const COLOUR = "masklets.colour";

/** @param {number} by  annotated frames */
export function step(by) {
  player.play(false);
  // from a frame between two annotated ones, a step back goes to the first of the two
  player.seek(player.position + by + (player.between && by < 0 ? 1 : 0));
}

/** @param {1 | -1} by  frames, annotated or not */
export function stepFrame(by) {
  player.play(false);
  player.seekFrame(player.frame + by);
}

let resumes = false; // it played before every frame was played

/** Play every frame from here on, until `playAnnotated`. */
export function playEvery() {
  if (player.everyFrame) return;
  resumes = player.playing;
  player.everyFrame = true;
  player.play(true);
}

/** Show the annotated frames alone again; it goes on only if it had been playing. */
export function playAnnotated() {
  if (!player.everyFrame) return;
  player.everyFrame = false;
  player.play(resumes);
  player.settle();
}

/** @param {1 | -1} direction  to the next or the previous frame that was changed or locked */
export function toChanged(direction) {
  const draft = desk.held?.draft;
  if (!draft) return;
  const places = draft.frames.flatMap((frame, i) => (draft.edited.has(frame) || draft.locked.has(frame) ? [i] : []));
  const next = nextPlace(places, direction);
  if (next !== undefined) player.seek(next);
}

/**
 * The first of some positions after the frame on screen, or the last one before it.
 * @param {number[]} places  ascending
 * @param {1 | -1} direction
 */
function nextPlace(places, direction) {
  const here = player.position + (player.between ? 0.5 : 0);
  return places.filter((position) => (position - here) * direction > 0).at(direction > 0 ? 0 : -1);
}

/** @param {1 | -1} direction  to the next or the previous suspect stretch */
export function toSuspect(direction) {
  const suspects = session.current?.timeline.suspects ?? [];
  const next = nextPlace(suspects.map(({ position }) => position), direction);
  if (next === undefined) return;
  player.play(false);
  player.seek(next);
}

/** @param {string} mode  one of MODES */
function setMode(mode) {
  player.setMode(mode);
  localStorage.setItem(MODE, mode);
}

export function nextMode() {
  const offered = MODES.filter((mode) => mode !== "before" || session.current?.isCorrection);
  setMode(offered[(offered.indexOf(player.mode) + 1) % offered.length]);
}

/** Compare with the masks before the correction, or no longer. */
export function toggleBefore() {
  if (!session.current?.isCorrection) return notice("Nobody has corrected this masklet yet.");
  setMode(player.mode === "before" ? "fill" : "before");
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
    // with Shift, some browsers turn the wheel sideways
    if (event.shiftKey && isSized()) return resizeBrush(Math.exp(-(event.deltaY || event.deltaX) / 500));
    player.zoom(Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
  },
  { passive: false },
);
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
addEventListener("pointerup", () => {
  const { activeElement } = document;
  if (activeElement instanceof HTMLInputElement && activeElement.type === "range") activeElement.blur();
});

setColour(Number(localStorage.getItem(COLOUR) ?? 0));
const kept = localStorage.getItem(MODE) ?? "";
player.setMode(MODES.includes(kept) ? kept : "fill");
