// Which key does what: the defaults, the keys that a person has chosen instead, and the names of keys.
// Knows nothing of what the actions do; shortcuts.js does.

/** @import { Side } from "./session.js" */

/**
 * @typedef {object} Action
 * @property {string} id
 * @property {string} title  for the list of keys
 * @property {string[]} keys  as `nameOf` names them
 * @property {Side} [view]  where the action is for one side of the work only
 * @property {boolean} [repeats]  it goes on while the key is held
 */

const KEPT = "masklets.keys";

/** @type {Action[]} */
export const ACTIONS = [
  { id: "accept", title: "accept: right in every frame", keys: ["a"], view: "verify" },
  { id: "refine", title: "refine: a clear object, to be corrected", keys: ["e"], view: "verify" },
  { id: "refineWhy", title: "refine, then 1–9 for what is wrong", keys: ["Shift+E"], view: "verify" },
  { id: "reject", title: "reject, then 1–9 for its reason", keys: ["x"] },
  { id: "unsure", title: "unsure: a lead decides", keys: ["u"], view: "verify" },
  { id: "unsubmit", title: "take back the last answer", keys: ["Backspace"], view: "verify" },
  { id: "submit", title: "submit the corrected masklet", keys: ["Enter"], view: "track" },
  { id: "click", title: "click: left button on the object, right button or Alt beside it", keys: ["c"], view: "track" },
  { id: "box", title: "box around the object", keys: ["q"], view: "track" },
  { id: "brush", title: "brush", keys: ["b"], view: "track" },
  { id: "eraser", title: "eraser", keys: ["Shift+B"], view: "track" },
  { id: "polygon", title: "polygon; a double click or the key that submits closes it", keys: ["p"], view: "track" },
  { id: "smaller", title: "smaller brush", keys: ["-"], view: "track" },
  { id: "larger", title: "larger brush", keys: ["="], view: "track" },
  { id: "forward", title: "propagate forward", keys: ["t"], view: "track" },
  { id: "backward", title: "propagate backward", keys: ["Shift+T"], view: "track" },
  { id: "both", title: "propagate both ways", keys: ["y"], view: "track" },
  { id: "lock", title: "lock this frame, or unlock it", keys: ["f"], view: "track" },
  { id: "absent", title: "absent from here … to here", keys: ["g"], view: "track" },
  { id: "clear", title: "forget the clicks and edits of this frame, its mask stays; again: empty the mask", keys: ["Delete"], view: "track" },
  { id: "newObject", title: "a new object in this video", keys: ["n"], view: "track" },
  { id: "otherObject", title: "go to the next object that you have begun in this video", keys: ["m"], view: "track" },
  { id: "undo", title: "undo", keys: ["Ctrl+z"], view: "track" },
  { id: "redo", title: "redo", keys: ["Ctrl+Shift+Z", "Ctrl+y"], view: "track" },
  { id: "previousPrompt", title: "previous frame that you changed or locked", keys: [","], view: "track" },
  { id: "nextPrompt", title: "next frame that you changed or locked", keys: ["."], view: "track" },
  { id: "play", title: "play or pause", keys: [" "] },
  { id: "back", title: "one annotated frame back", keys: ["ArrowLeft"], repeats: true },
  { id: "on", title: "one annotated frame forward", keys: ["ArrowRight"], repeats: true },
  { id: "back10", title: "ten annotated frames back", keys: ["Shift+ArrowLeft"], repeats: true },
  { id: "on10", title: "ten annotated frames forward", keys: ["Shift+ArrowRight"], repeats: true },
  { id: "first", title: "first frame", keys: ["Home"] },
  { id: "last", title: "last frame", keys: ["End"] },
  { id: "previousSuspect", title: "previous suspect frame", keys: ["["] },
  { id: "nextSuspect", title: "next suspect frame", keys: ["]"] },
  { id: "hide", title: "hide the overlay while held", keys: ["h"] },
  { id: "others", title: "the other objects of this video", keys: ["v"] },
  { id: "mode", title: "overlay: fill, outline, cut-out, before", keys: ["o"] },
  { id: "colour", title: "colour of the mask", keys: ["k"] },
  { id: "brighter", title: "make the picture brighter", keys: ["l"], repeats: true },
  { id: "darker", title: "make the picture darker", keys: ["Shift+L"], repeats: true },
  { id: "speed", title: "speed: 1×, 2×, 4×", keys: ["s"] },
  { id: "zoomIn", title: "zoom in (or the wheel)", keys: ["+", "Shift++"], repeats: true },
  { id: "zoomOut", title: "zoom out", keys: ["_", "Shift+_"], repeats: true },
  { id: "fit", title: "whole frame", keys: ["0"] },
  { id: "pan", title: "move the picture while held: drag it, or use the arrows", keys: ["d"] },
  { id: "turn", title: "switch between verifying and correcting", keys: ["w"] },
];

let chosen = read();

/** @returns {Record<string, string>} */
function read() {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? "{}");
  } catch {
    return {};
  }
}

/**
 * The name of a key with its modifiers: "a", "Shift+T", "Ctrl+z", "ArrowLeft".
 *
 * Shift is named for letters, which are capitals then, and for keys that print nothing.
 * @param {KeyboardEvent} event
 */
export function nameOf(event) {
  const ctrl = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const letter = event.key.length === 1;
  const key = letter ? (event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase()) : event.key;
  const shift = event.shiftKey && (!letter || key !== key.toLowerCase()) ? "Shift+" : "";
  return ctrl + shift + key;
}

/** @type {(action: Action) => string[]} */
export const keysOf = (action) => (chosen[action.id] ? [chosen[action.id]] : action.keys);

/**
 * The action of a key on one side of the work, or undefined.
 * @param {string} name
 * @param {Side} view
 */
export function find(name, view) {
  return ACTIONS.find((action) => (!action.view || action.view === view) && keysOf(action).includes(name));
}

/**
 * @param {string} id
 * @returns {Action}
 */
export function actionOf(id) {
  const found = ACTIONS.find((action) => action.id === id);
  if (!found) throw new Error(`there is no action ${id}`);
  return found;
}

/**
 * Give an action another key. An action that had this key takes the old one.
 * @param {string} id
 * @param {string} name
 */
export function choose(id, name) {
  const action = actionOf(id);
  const clash = ACTIONS.find(
    (a) => a !== action && keysOf(a).includes(name) && (!a.view || !action.view || a.view === action.view),
  );
  if (clash) chosen[clash.id] = keysOf(action)[0];
  chosen[id] = name;
  localStorage.setItem(KEPT, JSON.stringify(chosen));
}

export function reset() {
  chosen = {};
  localStorage.removeItem(KEPT);
}

/** @type {Record<string, string>} */
const SIGNS = { Enter: "⏎", Shift: "⇧", " ": "Space", ArrowLeft: "←", ArrowRight: "→", Delete: "Del", Backspace: "⌫" };

/** A key as it is written on the page. @type {(name: string) => string} */
export const sign = (name) =>
  name.split(/\+(?=.)/).map((part) => SIGNS[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");

/** The key of an action as it is written on the page. @type {(id: string) => string} */
export const hint = (id) => sign(keysOf(actionOf(id))[0]);
