// Texts for the person: the card in place of the ticket, the note above the video, the verdict that lights up.

/** @import { Verdict } from "../shared/types.js" */
import { $, element, replace } from "../shared/dom.js";
import { session } from "../shared/session.js";

const NOTICE_MS = 9000; // a note is shown for this long

/**
 * @typedef {object} Message
 * @property {string} glyph
 * @property {string} title
 * @property {string} text
 * @property {string[]} [counts]
 * @property {{text: string, run: () => unknown, key?: string}[]} [actions]  the first one answers to Enter
 * @property {() => unknown} [back]  for the key that takes an answer back: takes back what this message says
 * @property {"nothingLeft" | "noTicket"} [waits]  the queue is asked for a ticket while this is shown
 */

/** @type {Message | null} */
let shown = null;
/** @type {number | undefined} */
let timer = undefined;

/** @param {"work" | "sheet" | "message" | "login"} name  of what the page shows */
export function view(name) {
  document.body.dataset.view = name;
  session.emit("view", name);
}

export const shownView = () => document.body.dataset.view;

/** @param {Message} message  is shown in place of the ticket */
export function message(message) {
  const { glyph, title, text, counts = [], actions = [] } = message;
  $("message-glyph").textContent = glyph;
  $("message-title").textContent = title;
  $("message-text").textContent = text;
  $("message-counts").replaceChildren(...counts.map((line) => element("span", {}, line)));
  const buttons = actions.map((action, n) =>
    element(
      "button", { type: "button", className: n ? "quiet bordered" : "primary", onclick: () => void action.run() }, action.text,
      ...(action.key ? [" ", element("kbd", {}, action.key)] : []),
    ),
  );
  replace($("message-actions"), ...buttons);
  shown = message;
  view("message");
}

/** Why the queue is asked for a ticket again and again, or undefined if it is not. */
export const waits = () => shown?.waits;

/** Whether a message is shown, and no ticket has come since. */
export const isMessage = () => shownView() === "message";

/** The action of Enter. False if the message has none. */
export function pressEnter() {
  const action = shown?.actions?.[0];
  if (!action) return false;
  action.run();
  return true;
}

/** Take back what the message says. False if it says nothing of the kind. */
export function pressBack() {
  shown?.back?.();
  return Boolean(shown?.back);
}

/**
 * How long a note is true. It goes with the ticket on screen, with the next change of its draft, and after some seconds,
 * unless these say otherwise.
 * @typedef {object} Truth
 * @property {boolean} [stays]  until the next note, or until it is hidden
 * @property {boolean} [over]  it is about more than the ticket on screen
 * @property {boolean} [frame]  it is about the frame on screen
 * @property {() => boolean} [until]  whether it is no longer true; asked whenever something changes
 */

/** @type {Truth} */
let truth = {};
let isFresh = false; // the note was made by what runs now: what that changes does not end it
// A key or the pointer ends that: on a busy page, they may come before the timer that `notice` sets.
for (const act of ["keydown", "pointerdown"]) addEventListener(act, () => (isFresh = false), { capture: true });

/**
 * A note above the video, or over what is shown in its place.
 * @param {string} text
 * @param {Truth} [until]
 */
export function notice(text, until = {}) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  truth = until;
  isFresh = true;
  setTimeout(() => (isFresh = false));
  clearTimeout(timer);
  if (!until.stays) timer = setTimeout(hideNotice, NOTICE_MS);
}

export function hideNotice() {
  $("notice").hidden = true;
  truth = {};
}

/** Hide the note if it is no longer true. @param {keyof Truth} [changed]  what it may be about has changed */
export function checkNotice(changed) {
  if ($("notice").hidden || truth.stays) return;
  if (truth.until ? truth.until() : changed && truth[changed] && !isFresh) hideNotice();
}

/** Another ticket is on screen, or none. */
function leaveTicket() {
  if (!truth.over && !truth.stays) hideNotice();
}

session.on("ticket", leaveTicket);
session.on("view", (name) => {
  const place = $(name === "work" ? "stage" : name);
  if (place.contains($("notice"))) return; // the same again, such as a message with new numbers
  if (name !== "work") leaveTicket();
  place.append($("notice")); // where it can be seen
});
session.on("draft", () => {
  if (!isFresh && !truth.until && !truth.over && !truth.stays) hideNotice();
});
for (const change of /** @type {const} */ (["choosing", "draft", "progress", "stats", "saving"])) {
  session.on(change, () => checkNotice());
}

/**
 * Let a text light up for a moment.
 * @param {Verdict} verdict  gives the colour
 * @param {string} text
 */
export function flash(verdict, text) {
  const sign = $("flash");
  sign.textContent = text;
  sign.className = "flash";
  void sign.offsetWidth; // starts the animation again
  sign.className = `flash on ${verdict}`;
  session.emit("flash", text);
}
