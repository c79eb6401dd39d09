// Which key does what: the defaults, the keys that a person has chosen instead, and the names of keys.
// Knows nothing of what the actions do, which shortcuts.js knows, nor of where the chosen keys are kept.

/** @import { Side } from "./session.js" */

/**
 * @typedef {object} Action
 * @property {string} id
 * @property {string} title  for the list of keys
 * @property {string[]} keys  as `nameOf` names them
 * @property {string} [group]  the heading that this action and those after it have in the list of keys
 * @property {Side} [view]  where the action is for one side of the work only
 * @property {boolean} [repeats]  it goes on while the key is held
 * @property {boolean} [frame]  it changes the frame on screen, so that this one must be annotated
 * @property {boolean} [alt]  it also answers to its key with Alt, which means something else to it
 */

/** @type {Action[]} */
export const ACTIONS = [
  { id: "accept", title: "accept: right in every frame", keys: ["a"], view: "verify", group: "Answers" },
  { id: "refine", title: "refine: a clear object, to be corrected", keys: ["e"], view: "verify" },
  { id: "refineWhy", title: "refine, then 1–9 for what is wrong", keys: ["Shift+E"], view: "verify" },
  { id: "reject", title: "reject, then 1–9 for its reason", keys: ["x"] },
  { id: "unsure", title: "unsure: a lead decides", keys: ["u"], view: "verify" },
  { id: "comment", title: "comments on this ticket: read and write; beside a reason: in your own words", keys: ["Shift+C"] },
  { id: "unsubmit", title: "take back the last answer", keys: ["Backspace"] },
  { id: "submit", title: "submit the corrected masklet", keys: ["Enter"], view: "track", alt: true },
  { id: "leave", title: "leave this ticket: it goes back to the queue with what was done in it", keys: ["Shift+R"], view: "track" },
  { id: "click", title: "click: left button on the object, right button or Alt beside it", keys: ["c"], view: "track", group: "Tools" },
  { id: "box", title: "box around the object", keys: ["q"], view: "track" },
  { id: "brush", title: "brush", keys: ["b"], view: "track" },
  { id: "eraser", title: "eraser", keys: ["Shift+B"], view: "track" },
  { id: "polygon", title: "polygon; a double click or the key that submits closes it, undo drops its last corner", keys: ["p"], view: "track" },
  { id: "smaller", title: "smaller brush (or Shift and the wheel)", keys: ["-"], view: "track", repeats: true },
  { id: "larger", title: "larger brush", keys: ["="], view: "track", repeats: true },
  { id: "forward", title: "propagate forward", keys: ["t"], view: "track", group: "Propagation", frame: true },
  { id: "backward", title: "propagate backward", keys: ["Shift+T"], view: "track", frame: true },
  { id: "both", title: "propagate both ways", keys: ["y"], view: "track", frame: true },
  { id: "stretch", title: "propagate from here … to here", keys: ["i"], view: "track", frame: true },
  { id: "lock", title: "lock this frame, or unlock it", keys: ["f"], view: "track", group: "This frame", frame: true },
  { id: "absent", title: "absent from here … to here", keys: ["g"], view: "track", frame: true },
  { id: "clear", title: "take back all clicks and edits of this frame; without any: empty its mask", keys: ["Delete"], view: "track", frame: true },
  { id: "newObject", title: "a new object in this video", keys: ["n"], view: "track", group: "Objects" },
  { id: "otherObject", title: "go to the next object that you have begun in this video", keys: ["m"], view: "track" },
  { id: "undo", title: "undo; while verifying, the last label", keys: ["Ctrl+z"], group: "Undo" },
  { id: "redo", title: "redo", keys: ["Ctrl+Shift+Z", "Ctrl+y"] },
  { id: "label", title: "find a class for the label; the classes also show keys of their own", keys: ["Shift+N"], group: "Label" },
  { id: "guidelines", title: "guidelines for the labels, open or closed", keys: ["Shift+G"] },
  { id: "previousPrompt", title: "previous frame that you changed or locked", keys: [","], view: "track", group: "Time" },
  { id: "nextPrompt", title: "next frame that you changed or locked", keys: ["."], view: "track" },
  { id: "play", title: "play or pause", keys: [" "] },
  { id: "back", title: "one annotated frame back", keys: ["ArrowLeft"], repeats: true },
  { id: "on", title: "one annotated frame forward", keys: ["ArrowRight"], repeats: true },
  { id: "back10", title: "ten annotated frames back", keys: ["Shift+ArrowLeft"], repeats: true },
  { id: "on10", title: "ten annotated frames forward", keys: ["Shift+ArrowRight"], repeats: true },
  { id: "backFrame", title: "one frame back, also between annotated frames", keys: ["Ctrl+ArrowLeft"], repeats: true },
  { id: "onFrame", title: "one frame forward, also between annotated frames", keys: ["Ctrl+ArrowRight"], repeats: true },
  { id: "every", title: "play every frame while held, also those between annotated frames", keys: ["j"] },
  { id: "first", title: "first frame", keys: ["Home"] },
  { id: "last", title: "last frame", keys: ["End"] },
  { id: "previousSuspect", title: "previous suspect frame", keys: ["[", "PageUp"] },
  { id: "nextSuspect", title: "next suspect frame", keys: ["]", "PageDown"] },
  { id: "hide", title: "hide the overlay while held", keys: ["h"], group: "Masks" },
  { id: "others", title: "the other objects of this video", keys: ["v"] },
  { id: "mode", title: "overlay: fill, outline, cut-out, before", keys: ["o"] },
  { id: "before", title: "compare with the masks before the correction, or no longer", keys: ["Shift+V"] },
  { id: "opacity", title: "opacity of the masks: more, and after the most none", keys: ["Shift+O"], repeats: true },
  { id: "colour", title: "colour of the mask", keys: ["k"] },
  { id: "brighter", title: "make the picture brighter", keys: ["l"], group: "Picture", repeats: true },
  { id: "darker", title: "make the picture darker", keys: ["Shift+L"], repeats: true },
  { id: "speed", title: "speed: 1×, 2×, 4×", keys: ["s"] },
  { id: "zoomIn", title: "zoom in (or the wheel)", keys: ["+", "Shift++"], repeats: true },
  { id: "zoomOut", title: "zoom out", keys: ["_", "Shift+_"], repeats: true },
  { id: "fit", title: "whole frame", keys: ["0"] },
  { id: "pan", title: "move the picture while held: drag it, or use the arrows", keys: ["d"] },
  { id: "sheet", title: "a sheet of calm masklets: accept or open each at a glance", keys: ["Shift+S"], view: "verify", group: "Page" },
  { id: "turn", title: "switch between verifying and correcting", keys: ["w"] },
  { id: "foldPanel", title: "fold the panel, or show it again", keys: ["Shift+P"] },
  { id: "foldStrip", title: "fold the time line, or show it again", keys: ["Shift+D"] },
  { id: "fullScreen", title: "full screen, or leave it", keys: ["Shift+F"] },
];

/** The actions under their headings. @type {{title: string, actions: Action[]}[]} */
export const GROUPS = [];
for (const action of ACTIONS) {
  if (action.group) GROUPS.push({ title: action.group, actions: [] });
  GROUPS[GROUPS.length - 1].actions.push(action);
}

/**
 * Keys that cannot be chosen, under their headings.
 * @type {{title: string, view?: Side, rows: [keys: string, title: string][]}[]}
 */
export const FIXED = [
  { title: "On the sheet", view: "verify", rows: [
    ["← → ↑ ↓", "choose a masklet"],
    ["Enter", "open the chosen masklet, to judge it alone"],
    ["Esc", "leave the sheet: one ticket at a time"],
  ] },
  { title: "In the comments", rows: [
    ["Ctrl Enter", "send the comment"],
    ["Esc", "close the comments"],
  ] },
];

/** By action. @type {Record<string, string>} */
let chosen = {};

/** @param {Record<string, string>} keys  that the person who has logged in chose */
export function use(keys) {
  const known = ACTIONS.map(({ id }) => id);
  chosen = Object.fromEntries(Object.entries(keys).filter(([id]) => known.includes(id)));
}

/** The keys that the person chose, by action. */
export const chosenKeys = () => ({ ...chosen });

// The signs that a key of the American layout prints, by its place: for layouts that print something else there.
/** @type {Record<string, string>} */
const PLACES = { BracketLeft: "[", BracketRight: "]", Minus: "-", Equal: "=", Comma: ",", Period: "." };
const LETTER = /^[a-z]$/i;
const SIGN = /^[!-/:-@[-`{-~]$/;

/** What a key prints on the American layout, or "". @type {(code: string) => string} */
const placeOf = (code) => /^(?:Key|Digit)(.)$/.exec(code)?.[1].toLowerCase() ?? PLACES[code] ?? "";

/**
 * Alt, and AltGr, which Windows reports as Ctrl and Alt. Where they only help to print a sign, such as [ on a German
 * keyboard, they are no modifiers.
 * @param {KeyboardEvent} event
 */
function modifiersOf(event) {
  const prints = SIGN.test(event.key) && (event.altKey || event.getModifierState("AltGraph"));
  const ctrl = (event.ctrlKey || event.metaKey) && !prints;
  const alt = (event.altKey || event.getModifierState("AltGraph")) && !prints;
  return (ctrl ? "Ctrl+" : "") + (alt ? "Alt+" : "");
}

/** @type {(key: string, shifted: boolean) => string} */
function withShift(key, shifted) {
  const letter = key.length === 1;
  const name = letter ? (shifted ? key.toUpperCase() : key.toLowerCase()) : key;
  return (shifted && (!letter || name !== name.toLowerCase()) ? "Shift+" : "") + name;
}

/**
 * The name of a key with its modifiers: "a", "Shift+T", "Ctrl+z", "Alt+Enter", "ArrowLeft".
 *
 * Shift is named for letters, which are capitals then, and for keys that print nothing.
 * @param {KeyboardEvent} event
 */
export const nameOf = (event) => modifiersOf(event) + withShift(event.key, event.shiftKey);

/**
 * The name of a key by its place, where the layout has no Latin letter there: "a" for ф, "[" for ü. Otherwise "".
 * @param {KeyboardEvent} event
 */
function nameOfPlace(event) {
  const key = placeOf(event.code);
  if (!key || LETTER.test(event.key) || (event.shiftKey && !LETTER.test(key))) return "";
  return modifiersOf(event) + withShift(key, event.shiftKey);
}

/** The digit of a key, also where the layout prints digits only with Shift; or NaN. @type {(event: KeyboardEvent) => number} */
export function digitOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return NaN;
  return Number(/^[0-9]$/.test(event.key) ? event.key : /^Digit(.)$/.exec(event.code)?.[1] ?? NaN);
}

/** @type {(action: Action) => string[]} */
export const keysOf = (action) => (chosen[action.id] ? [chosen[action.id]] : action.keys);

/** @type {(name: string, view: Side) => Action | undefined} */
const named = (name, view) =>
  ACTIONS.find((action) => {
    const own = action.alt ? name.replace("Alt+", "") : name;
    return (!action.view || action.view === view) && keysOf(action).includes(own);
  });

/** Whether an action has the key with this name on one side of the work. @type {(name: string, view: Side) => boolean} */
export const isTaken = (name, view) => named(name, view) !== undefined;

/**
 * The action of a key on one side of the work, or undefined: by what the key prints, else by its place.
 * @param {KeyboardEvent} event
 * @param {Side} view
 */
export const find = (event, view) => named(nameOf(event), view) ?? named(nameOfPlace(event), view);

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
 * The name under which a key is chosen: what it prints, or its place if it prints no Latin letter or sign.
 * @param {KeyboardEvent} event
 */
export const nameToChoose = (event) =>
  event.key.length > 1 || /^[ -~]$/.test(event.key) ? nameOf(event) : nameOfPlace(event) || nameOf(event);

/**
 * Why a key cannot be chosen, or null.
 * @param {string} name
 */
export function whyNot(name) {
  if (name === "?") return "The key ? opens this list.";
  if (/^[1-9]$/.test(name)) return "The keys 1 to 9 choose reasons and labels.";
  if (/(^|\+)(F\d+|Tab|ContextMenu|PrintScreen|CapsLock|NumLock|ScrollLock|Pause|Insert)$/.test(name)) {
    return `${sign(name)} belongs to the browser.`;
  }
  if (/(^|\+)(Dead|Process|Unidentified|Compose|Escape)$/.test(name)) return "This key cannot be chosen.";
  const own = ACTIONS.some((action) => action.keys.includes(name));
  if (/^(Ctrl|Alt)\+/.test(name) && !own) return "Keys with Ctrl or Alt belong to the browser.";
  return null;
}

/**
 * The action that has this key where the action `id` would use it, or undefined.
 * @param {string} id
 * @param {string} name
 */
export function clashOf(id, name) {
  const action = actionOf(id);
  return ACTIONS.find(
    (a) => a !== action && keysOf(a).includes(name) && (!a.view || !action.view || a.view === action.view),
  );
}

/**
 * Give an action another key. An action that had this key takes the old one.
 * @param {string} id
 * @param {string} name
 */
export function choose(id, name) {
  const clash = clashOf(id, name);
  if (clash) chosen[clash.id] = keysOf(actionOf(id))[0];
  chosen[id] = name;
}

export function reset() {
  chosen = {};
}

/** @type {Record<string, string>} */
const SIGNS = { Enter: "⏎", Shift: "⇧", " ": "Space", ArrowLeft: "←", ArrowRight: "→", Delete: "Del", Backspace: "⌫" };

/** A key as it is written on the page. @type {(name: string) => string} */
export const sign = (name) =>
  name.split(/\+(?=.)/).map((part) => SIGNS[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");

/** The key of an action as it is written on the page. @type {(id: string) => string} */
export const hint = (id) => sign(keysOf(actionOf(id))[0]);
