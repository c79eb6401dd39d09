// Why a masklet is rejected or sent back: the reason, what the person adds in their own words, and for "same object as
// another" which object that is.

/** @import { Reason, Verdict } from "../shared/types.js" */
/** @import { VideoObject } from "../shared/held.js" */
import { decide } from "./answers.js";
import { element } from "../shared/dom.js";
import * as keys from "../shared/keys.js";
import { notice } from "./messages.js";
import { showOthers } from "./objects.js";
import { colourOf } from "../canvas/palette.js";
import { endPick, pick } from "./picking.js";
import { Mask } from "../shared/rle.js";
import { player } from "./screen.js";
import { session } from "../shared/session.js";
import { REASONS, WHY } from "../shared/words.js";

let words = ""; // that the person adds
/** @typedef {{object: VideoObject, n: number}} Numbered  n: as its row and its label on the picture count, from 0 */

/** The objects that the one on screen may be the same as; null: no such object is asked for. @type {Numbered[] | null} */
let objects = null;
let asking = false; // for the other objects
let hadOthers = false; // whether the other objects were shown before they were asked for

/** What the person is asked while a reason is to be chosen. @param {Verdict} verdict */
export const questions = (verdict) => (objects ? whichObject(objects) : whichReason(verdict));

/** @param {Verdict} verdict */
function whichReason(verdict) {
  const buttons = (WHY[verdict] ?? []).map((reason) =>
    choice(`reason-${reason}`, String(session.person.reasons.indexOf(reason) + 1), REASONS[reason], () => because(reason)));
  const field = element("input", {
    id: "in-words",
    className: "in-words",
    maxLength: 2000,
    value: words,
    ariaLabel: "In your own words",
    placeholder: `${keys.hint("comment")} add in your own words`,
    oninput: () => (words = field.value),
    onkeydown: ({ key }) => {
      if (key === "Enter" || key === "Escape") field.blur(); // the keys are for the reasons again
    },
  });
  return [
    element("p", { className: "label" }, verdict === "reject" ? "Why is it rejected?" : "What is wrong with it?"),
    field,
    element("div", { className: "reasons" }, ...buttons),
  ];
}

/** @param {Numbered[]} offered */
function whichObject(offered) {
  const buttons = offered.map(({ object, n }) => {
    const swatch = element("i", { className: "swatch" });
    swatch.style.background = `rgb(${colourOf(n).join(" ")})`;
    return choice(`same-${n}`, n < 9 ? String(n + 1) : "", `Object ${n + 1}`, () => sameAs(object), swatch);
  });
  return [
    element("p", { className: "label" }, "Which object is it the same as? Click on it in the picture, or choose it here."),
    element("div", { className: "objects" }, ...buttons),
    choice("same-unknown", "0", "I cannot say", () => sameAs(null)),
  ];
}

/** @type {(id: string, key: string, text: string, run: () => unknown, mark?: Node) => HTMLElement} */
function choice(id, key, text, run, mark) {
  const properties = { type: /** @type {const} */ ("button"), id, className: "reason", onclick: () => void run() };
  return element("button", properties, element("kbd", {}, key), ...(mark ? [mark] : []), element("span", {}, text));
}

/** Write in one's own words. */
export const focusWords = () => document.getElementById("in-words")?.focus();

/** @param {number} digit  that was pressed while a reason is to be chosen. False if it means something else. */
export function numbered(digit) {
  if (!objects && digit === 0) return false;
  if (!objects) void because(session.person.reasons[digit - 1]);
  else if (digit === 0) sameAs(null);
  else {
    const named = objects.find(({ n }) => n === digit - 1);
    if (named) sameAs(named.object);
  }
  return true;
}

/** From the objects back to the reasons. False if no object is asked for. */
export function backToReasons() {
  if (!objects) return false;
  forgetObjects();
  session.emit("choosing");
  return true;
}

/** @param {Reason} reason */
async function because(reason) {
  const { current: held, choosing: verdict } = session;
  if (!held || !verdict || asking || !WHY[verdict]?.includes(reason)) return;
  if (reason !== "duplicate") return decide(verdict, [reason], inWords());
  asking = true;
  hadOthers = player.showOthers;
  player.showOthers = true;
  await showOthers();
  asking = false;
  if (session.current !== held || session.choosing !== verdict) return forgetObjects();
  if (held.otherTickets === null) {
    forgetObjects();
    return notice("The other objects of this video cannot be fetched. Try again, or choose another reason.");
  }
  objects = (held.others ?? []).map((object, n) => ({ object, n })).filter(({ object }) => object.masklet_id);
  if (objects.length === 0) return sameAs(null);
  player.play(false);
  pick(pickObject);
  session.emit("choosing");
}

/** @type {import("./picking.js").Take} */
function pickObject([x, y], position) {
  const held = session.current;
  if (!held || !objects) return;
  const { height, width } = held.info;
  const frame = held.timeline.frames[position];
  const at = Math.min(height - 1, Math.floor(y)) * width + Math.min(width - 1, Math.floor(x));
  const there = objects.find(({ object: { frame_idx, rle } }) => {
    const place = frame_idx.indexOf(frame);
    return place >= 0 && new Mask(rle[place], height, width).bits[at] > 0;
  });
  if (there) sameAs(there.object);
  else notice("No other object is there. Go to a frame that shows it, or choose it in the list.", { frame: true });
}

/** @param {VideoObject | null} object  null: the person cannot say */
function sameAs(object) {
  const verdict = session.choosing;
  forgetObjects();
  if (verdict) decide(verdict, ["duplicate"], { ...inWords(), ...(object?.masklet_id ? { same_as: object.masklet_id } : {}) });
}

function forgetObjects() {
  objects = null;
  endPick(pickObject);
  player.showOthers = hadOthers;
  void showOthers();
}

const inWords = () => (words.trim() ? { text: words.trim() } : {});

/** Nothing is chosen any more. */
function forget() {
  if (objects) forgetObjects();
  words = "";
}
session.on("ticket", forget);
session.on("choosing", () => session.choosing === null && forget());
