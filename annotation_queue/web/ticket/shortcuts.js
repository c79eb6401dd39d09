// What each key does. keys.js has the keys; the actions are in the modules that this one imports.

import { answer, leaveTicket, submitMasklet, switchSide, takeBack, why } from "./answers.js";
import { resizeBrush } from "./brush_size.js";
import { closeComments, isWriting, openComments } from "./comments.js";
import {
  hideMasks, nextColour, nextMode, playAnnotated, playEvery, setPanning, step, stepFrame, toChanged, toggleBefore, toSuspect,
} from "./controls.js";
import { whyNoMask } from "../canvas/desk.js";
import { $ } from "../shared/dom.js";
import { toggleFold, toggleFullScreen } from "./folding.js";
import { Help } from "./help.js";
import * as keys from "../shared/keys.js";
import { chooseByKey, redoLabel, searchLabel, toggleGuidelines, undoLabel } from "./labels.js";
import { isMessage, notice, pressBack, pressEnter, shownView } from "./messages.js";
import { newObject, otherObject, toggleOthers } from "./objects.js";
import { backToWork } from "./opening.js";
import { desk, player } from "./screen.js";
import { session } from "../shared/session.js";
import { onSheetKey, openSheet } from "./sheet.js";
import { brighten, closeViewMenu, nextOpacity } from "./view_menu.js";
import { showKeys } from "./views.js";
import { backToReasons, focusWords, numbered } from "./why.js";

/** By the id of the action. @type {Record<string, (event: KeyboardEvent) => unknown>} */
const RUN = {
  accept: () => answer("accept"),
  refine: () => answer("refine"),
  refineWhy: () => why("refine"),
  reject: () => answer("reject"),
  unsure: () => answer("unsure"),
  comment: () => (session.choosing ? focusWords() : openComments()),
  unsubmit: () => (desk.corners ? desk.undo() : takeBack()),
  submit: (event) => (desk.corners ? closePolygon(event.altKey) : submitMasklet()),
  leave: leaveTicket,
  click: () => desk.choose("click"),
  box: () => desk.choose("box"),
  brush: () => desk.choose("brush"),
  eraser: () => desk.choose("eraser"),
  polygon: () => desk.choose("polygon"),
  smaller: () => resizeBrush(1 / 1.25),
  larger: () => resizeBrush(1.25),
  forward: () => desk.propagate("forward"),
  backward: () => desk.propagate("backward"),
  both: () => desk.propagate("both"),
  stretch: () => desk.stretch(),
  lock: () => desk.lock(),
  absent: () => desk.absent(),
  clear: () => desk.clear(),
  newObject,
  otherObject,
  undo: () => (desk.active ? desk.undo() : undoLabel()),
  redo: () => (desk.active ? desk.redo() : redoLabel()),
  label: searchLabel,
  guidelines: toggleGuidelines,
  previousPrompt: () => toChanged(-1),
  nextPrompt: () => toChanged(1),
  play: () => player.play(),
  back: () => step(-1),
  on: () => step(1),
  back10: () => step(-10),
  on10: () => step(10),
  backFrame: () => stepFrame(-1),
  onFrame: () => stepFrame(1),
  every: playEvery,
  first: () => step(-Infinity),
  last: () => step(Infinity),
  previousSuspect: () => toSuspect(-1),
  nextSuspect: () => toSuspect(1),
  hide: () => hideMasks(true),
  others: toggleOthers,
  colour: nextColour,
  opacity: nextOpacity,
  brighter: () => brighten(1),
  darker: () => brighten(-1),
  foldPanel: () => toggleFold("panel"),
  foldStrip: () => toggleFold("strip"),
  fullScreen: toggleFullScreen,
  turn: () => $("turn").hidden || switchSide(),
  sheet: openSheet,
  mode: nextMode,
  before: toggleBefore,
  speed: () => player.nextSpeed(),
  zoomIn: () => player.zoom(1.4),
  zoomOut: () => player.zoom(1 / 1.4),
  fit: () => player.wholeFrame(),
  pan: () => setPanning(true),
};
// What they do cannot be meant while a comment is written: the ticket would be answered, or go.
const ANSWER = ["accept", "refine", "refineWhy", "reject", "unsure", "submit", "leave", "turn", "unsubmit"];
const CHANGE = ["reject", "unsubmit", "turn", "undo", "redo"]; // what they do changes a ticket, on both sides of the work
/** px, while the key of `pan` is held. @type {Record<string, [number, number]>} */
const PAN = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

const help = new Help(() => session.current?.side ?? null, showKeys);

/**
 * Whether a control that has the focus takes this key.
 * @param {KeyboardEvent} event
 */
function isForControl({ target, key }) {
  if (target === document.body || target === $("screen")) return false;
  const slides = /^(Arrow|Page|Home|End)/.test(key);
  return key === "Enter" || key === " " || (slides && target instanceof HTMLInputElement);
}

addEventListener("keydown", (event) => {
  const writes = event.target instanceof Element
    && event.target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  if (help.takes(event) || writes) return;
  if (event.key === "?") {
    event.preventDefault(); // the field that gets the focus would take it
    return help.toggle();
  }
  if (document.querySelector("dialog[open]")) return;
  if (shownView() === "sheet") return onSheetKey(event);
  if (isForControl(event)) return;
  if (isMessage()) return onMessage(event);
  if (shownView() === "work" && session.current) onWork(event);
});

/** @param {KeyboardEvent} event */
function onMessage(event) {
  if (event.key === "Enter" && pressEnter()) return event.preventDefault();
  if (keys.find(event, "verify")?.id === "unsubmit" && !event.repeat && !pressBack()) takeBack();
}

/** @param {KeyboardEvent} event */
function onWork(event) {
  const held = session.current;
  const { choosing } = session;
  if (!held) return;
  const digit = keys.digitOf(event);
  if (choosing && digit >= 0 && isWriting()) return sayUnsent();
  if (choosing && digit >= 0 && numbered(digit)) return event.preventDefault();
  if (event.key === "Escape" && closeViewMenu()) return event.preventDefault();
  if (player.panning && PAN[event.key]) {
    player.pan(...PAN[event.key]);
    return event.preventDefault();
  }
  if (held.readOnly) return onLook(event);
  if (event.key === "Escape") {
    held.habit = null;
    if (closeComments()) return;
    if (choosing) backToReasons() || session.choose(null);
    else if (desk.active && (desk.abandon() || desk.stopAll())) session.emit("draft");
    return;
  }
  const action = keys.find(event, held.side);
  if (action?.id !== "submit") touch();
  if (!action) return void (chooseByKey(event) && event.preventDefault());
  event.preventDefault();
  if (action.frame && player.between) return notice(whyNoMask(), { frame: true });
  const draws = desk.corners > 0 && ["submit", "unsubmit"].includes(action.id); // of a polygon: no answer
  if (ANSWER.includes(action.id) && !draws && isWriting()) return sayUnsent();
  if (!event.repeat || action.repeats) RUN[action.id](event);
}

/** A key that answers the ticket was pressed, and its comment is not sent. */
const sayUnsent = () =>
  notice("Your comment is not sent yet, so this key does nothing. Ctrl ⏎ in the comment sends it, Esc closes it.", { until: () => !isWriting() });

/** A ticket is only looked at. @param {KeyboardEvent} event */
function onLook(event) {
  if (event.key === "Escape" && closeComments()) return;
  if (event.key === "Escape" || event.key === "Enter") return backToWork();
  const action = keys.find(event, "verify");
  if (!action || action.view || CHANGE.includes(action.id)) return;
  event.preventDefault();
  if (!event.repeat || action.repeats) RUN[action.id](event);
}

/** @param {boolean} minus  cut it out of the mask */
function closePolygon(minus) {
  desk.close(minus);
  if (session.current && !desk.corners) session.current.habit = "polygon";
}

/** The person does something in the ticket that is on screen. */
function touch() {
  if (session.current && player.shown >= 0) session.current.habit = null;
}
// on the verdicts, the pointer may still be there from the ticket before
const isElsewhere = (/** @type {Event} */ { target }) => target instanceof Element && !target.closest("#verdicts");
for (const kind of ["pointerdown", "wheel"]) {
  document.querySelector("main")?.addEventListener(kind, (event) => isElsewhere(event) && touch(), { passive: true });
}

/** End what lasts while a key is held. */
function release() {
  setPanning(false);
  hideMasks(false);
  playAnnotated();
}
addEventListener("keyup", ({ key }) => (player.hidden || player.panning || player.everyFrame) && !PAN[key] && release());
addEventListener("blur", release);

$("turn").addEventListener("click", switchSide);
