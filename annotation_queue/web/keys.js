// Which key does what. The defaults, what a person made of them, and how a key is named.

const KEPT = "masklets.keys";

// id: what app.js does. keys: as `name` gives them. view: "verify" or "track" where it is for one of them only.
export const ACTIONS = [
  { id: "accept", title: "accept: right in every frame", keys: ["a"], view: "verify" },
  { id: "refine", title: "refine: a clear object, to be corrected", keys: ["e"], view: "verify" },
  { id: "refineWhy", title: "refine, then 1–9 for what is wrong", keys: ["Shift+E"], view: "verify" },
  { id: "reject", title: "reject, then 1–9 for its reason", keys: ["x"] },
  { id: "unsure", title: "unsure: a lead decides", keys: ["u"], view: "verify" },
  { id: "unsubmit", title: "take back the last answer", keys: ["Backspace"], view: "verify" },
  { id: "submit", title: "submit: the masklet is right now", keys: ["Enter"], view: "track" },
  { id: "click", title: "click: left on the object, right or Alt beside it", keys: ["c"], view: "track" },
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
  { id: "clear", title: "forget what was done on this frame; again: empty it", keys: ["Delete"], view: "track" },
  { id: "newObject", title: "a new object in this video", keys: ["n"], view: "track" },
  { id: "otherObject", title: "to the next object that you have begun here", keys: ["m"], view: "track" },
  { id: "undo", title: "undo", keys: ["Ctrl+z"], view: "track" },
  { id: "redo", title: "redo", keys: ["Ctrl+Shift+Z", "Ctrl+y"], view: "track" },
  { id: "previousPrompt", title: "previous frame that was touched", keys: [","], view: "track" },
  { id: "nextPrompt", title: "next frame that was touched", keys: ["."], view: "track" },
  { id: "play", title: "play or pause", keys: [" "] },
  { id: "back", title: "one annotated frame back", keys: ["ArrowLeft"], repeats: true },
  { id: "on", title: "one annotated frame on", keys: ["ArrowRight"], repeats: true },
  { id: "back10", title: "ten back", keys: ["Shift+ArrowLeft"], repeats: true },
  { id: "on10", title: "ten on", keys: ["Shift+ArrowRight"], repeats: true },
  { id: "first", title: "first frame", keys: ["Home"] },
  { id: "last", title: "last frame", keys: ["End"] },
  { id: "previousSuspect", title: "previous suspect frame", keys: ["["] },
  { id: "nextSuspect", title: "next suspect frame", keys: ["]"] },
  { id: "hide", title: "hide the overlay while held", keys: ["h"] },
  { id: "others", title: "the other objects of this video", keys: ["v"] },
  { id: "mode", title: "overlay: fill, outline, cut-out, before", keys: ["o"] },
  { id: "colour", title: "colour of the mask", keys: ["k"] },
  { id: "brighter", title: "a brighter picture", keys: ["l"], repeats: true },
  { id: "darker", title: "a darker picture", keys: ["Shift+L"], repeats: true },
  { id: "speed", title: "speed: 1×, 2×, 4×", keys: ["s"] },
  { id: "zoomIn", title: "zoom in (or the wheel)", keys: ["+", "Shift++"], repeats: true },
  { id: "zoomOut", title: "zoom out", keys: ["_", "Shift+_"], repeats: true },
  { id: "fit", title: "whole frame", keys: ["0"] },
  { id: "pan", title: "move the picture while held: drag it, or arrows", keys: ["d"] },
  { id: "turn", title: "from verifying to correcting, or back", keys: ["w"] },
];

let chosen = read();

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? "{}");
  } catch {
    return {};
  }
}

export function nameOf(event) {
  // "a", "Shift+T", "Ctrl+z", "ArrowLeft": Shift shows for letters by their case, and for keys that print nothing.
  const ctrl = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const letter = event.key.length === 1;
  const key = letter ? (event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase()) : event.key;
  const shift = event.shiftKey && (!letter || key !== key.toLowerCase()) ? "Shift+" : "";
  return ctrl + shift + key;
}

export const keysOf = (action) => (chosen[action.id] ? [chosen[action.id]] : action.keys);

export function find(name, view) {
  // The action of a key in a view, or undefined.
  return ACTIONS.find((action) => (!action.view || action.view === view) && keysOf(action).includes(name));
}

export function choose(id, name) {
  // Give an action another key; an action that had it takes the old one.
  const action = ACTIONS.find((a) => a.id === id);
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

const SIGNS = { Enter: "⏎", Shift: "⇧", " ": "Space", ArrowLeft: "←", ArrowRight: "→", Delete: "Del", Backspace: "⌫" };

export const sign = (name) =>
  name.split(/\+(?=.)/).map((part) => SIGNS[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");

export const hint = (id) => sign(keysOf(ACTIONS.find((action) => action.id === id))[0]);
