// Texts for the person: the card in place of the ticket, the note above the video, the verdict that lights up.

/** @import { Verdict } from "./types.js" */
import { $, element, replace } from "./dom.js";
import { session } from "./session.js";

const NOTICE_MS = 9000; // a note is shown for this long

/**
 * @typedef {object} Message
 * @property {string} glyph
 * @property {string} title
 * @property {string} text
 * @property {string[]} [counts]
 * @property {{text: string, run: () => unknown, key?: "Enter"}[]} [actions]  the first one answers to Enter
 * @property {"nothingLeft" | "noTicket"} [waits]  the queue is asked for a ticket while this is shown
 */

/** @type {Message | null} */
let shown = null;
/** @type {number | undefined} */
let timer = undefined;

/** @param {"work" | "message" | "login"} name  of what the page shows */
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
  const buttons = actions.map((action) =>
    element(
      "button", { type: "button", className: "primary", onclick: () => void action.run() }, action.text,
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

/**
 * A note above the video.
 * @param {string} text
 * @param {boolean} stays  until the next one
 */
export function notice(text, stays = false) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  clearTimeout(timer);
  if (!stays) timer = setTimeout(hideNotice, NOTICE_MS);
}

export function hideNotice() {
  $("notice").hidden = true;
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
}
