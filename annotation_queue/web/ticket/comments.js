// Comments: the thread of the ticket on screen, beside the video, and pins on the picture where they point. What a person
// writes goes through the outbox, so that no lost connection loses it.

/** @import { Comment, NewComment, Point } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
import * as api from "../shared/api.js";
import { $, element } from "../shared/dom.js";
import { checkNotice, notice } from "./messages.js";
import { copyButton } from "../shared/names.js";
import { endPick, pick, picks } from "./picking.js";
import { player } from "./screen.js";
import { outbox } from "./sending.js";
import { session } from "../shared/session.js";
import { commentItem, nearest } from "../shared/thread.js";

const AGAIN_MS = 10000; // between two questions for the thread while it is open
const ON_PICTURE = 90; // characters of a comment that are shown over the picture

const box = $("comment-text", HTMLTextAreaElement);
const onFrame = $("comment-on-frame", HTMLInputElement);

/** By ticket, what the queue has sent and what this person has written since. @type {Map<string, Map<string, Comment>>} */
const threads = new Map();
/** By person and ticket, what is written and not sent. @type {Map<string, string>} */
const begun = new Map();
/** Where the comment points that is being written. @type {{frame: number, at: Point} | null} */
let point = null;
/** @type {HeldTicket | null} */
let shown = null; // the ticket whose comments are on the page
let isOpen = false;
let listed = ""; // the thread as it is on the page

// --- the thread ------------------------------------------------------------------------------------------------------

/** The oldest first; what was written here comes last. @type {(ticketId: string) => Comment[]} */
const threadOf = (ticketId) => [...(threads.get(ticketId)?.values() ?? [])];

/** The comments that wait to be sent. @param {string} ticketId */
const unsent = (ticketId) => outbox.of(ticketId).flatMap((item) => (item.what === "comment" ? [item.body] : []));

/**
 * Ask the queue for the thread.
 * @param {string} ticketId
 */
async function refresh(ticketId) {
  const found = await api.comments(ticketId).catch(() => []); // asked again when the thread is opened
  const own = unsent(ticketId).map((body) => ofMine(ticketId, body));
  const all = [...found, ...threadOf(ticketId), ...own]; // a comment that was sent meanwhile may be missing in `found`
  threads.set(ticketId, new Map(all.map((comment) => [comment.comment_id, comment])));
  if (shown?.ticket.ticket_id !== ticketId) return;
  show();
  player.refresh(); // the texts over the picture
}

/** @type {(ticketId: string, body: NewComment) => Comment} */
const ofMine = (ticketId, body) => ({ ...body, ticket_id: ticketId, person: session.person.name });

// --- what is shown ---------------------------------------------------------------------------------------------------

function show() {
  if (!shown) return;
  const { ticket_id: id } = shown.ticket;
  const thread = threadOf(id);
  $("open-comments").textContent = thread.length ? `Comments ${thread.length}` : "Comments";
  $("open-comments").classList.toggle("some", thread.length > 0);
  showPins();
  if (!isOpen) return;
  showPlace();
  const waiting = unsent(id).map(({ comment_id }) => comment_id);
  const now = JSON.stringify([id, thread, waiting]);
  if (now === listed) return; // a selected text, or a button with the focus, stays as it is
  listed = now;
  $("thread").replaceChildren(...thread.map((comment, n) => entryOf(comment, n, waiting.includes(comment.comment_id))));
  $("no-comments").hidden = thread.length > 0;
}

/** @type {(comment: Comment, n: number, waits: boolean) => HTMLElement} */
const entryOf = (comment, n, waits) =>
  commentItem(comment, n, waits ? "not sent yet" : new Date(comment.created_at).toLocaleString(), goTo);

/** @param {number} frameIdx  the frame itself is annotated or not: the nearest annotated one is shown */
export function goTo(frameIdx) {
  if (!player.held) return;
  player.play(false);
  player.seek(nearest(player.held.timeline.frames, frameIdx));
}

/** The comments about the frame on screen, with their places in the thread. */
function onScreen() {
  if (!shown || player.held !== shown || player.shown < 0) return [];
  const { frames } = shown.timeline;
  return threadOf(shown.ticket.ticket_id).flatMap((comment, n) =>
    comment.frame_idx !== null && nearest(frames, comment.frame_idx) === player.shown ? [{ comment, n }] : []);
}

/** Put a numbered pin on each point of the frame on screen. */
export function showPins() {
  const pins = onScreen().flatMap(({ comment: { x, y }, n }) => (x === null || y === null ? [] : [pinAt([x, y], String(n + 1))]));
  const mine = point && shown?.timeline.frames[player.shown] === point.frame ? [pinAt(point.at, "…")] : [];
  $("pins").replaceChildren(...pins, ...mine);
}

/** @type {(at: Point, text: string) => HTMLElement} */
function pinAt(at, text) {
  const [left, top] = player.toStage(at);
  const pin = element("span", { className: "pin" }, text);
  pin.style.left = `${left}px`;
  pin.style.top = `${top}px`;
  return pin;
}

/** The texts about the frame on screen, to be read over the picture. @returns {string[]} */
export const textsOnScreen = () =>
  onScreen().map(({ comment: { person, text } }) => `${person}: ${inOneLine(text)}`);

/** The beginning of a text, for over the picture. @param {string} text */
export function inOneLine(text) {
  const line = text.replaceAll(/\s+/g, " ");
  return line.length > ON_PICTURE ? `${line.slice(0, ON_PICTURE)}…` : line;
}

/** Another frame is on screen. */
export function showFrameOfComments() {
  showPins();
  if (isOpen) showPlace();
}

/** What the comment that is being written is about. */
function showPlace() {
  if (!shown) return;
  const frame = point?.frame ?? shown.timeline.frames[Math.max(0, player.shown)];
  $("comment-frame").textContent = point ? `about the point on frame ${frame}` : `about frame ${frame}`;
  $("comment-point").textContent = point ? "Forget the point" : "Point at the picture";
  const link = linkTo(shown.ticket.ticket_id, frame);
  if ($("comment-link").dataset.link === link) return; // its button may be saying that it has copied
  $("comment-link").dataset.link = link;
  $("comment-link").replaceChildren("Link to this frame ", copyButton(link, "Copy the link"));
}

/** @type {(ticketId: string, frame: number) => string} */
const linkTo = (ticketId, frame) => `${location.origin}/#ticket=${encodeURIComponent(ticketId)}&frame=${frame}`;

// --- reading and writing ---------------------------------------------------------------------------------------------

/** Open the thread of the ticket on screen, to read it or to write. */
export function openComments() {
  if (!shown) return;
  player.play(false);
  isOpen = true;
  $("comments").hidden = false;
  $("open-comments").ariaExpanded = "true";
  show();
  box.focus();
  void refresh(shown.ticket.ticket_id);
}

/** Close the thread. True if it was open. */
export function closeComments() {
  if (!isOpen) return false;
  isOpen = false;
  $("comments").hidden = true;
  $("open-comments").ariaExpanded = "false";
  endPick(takePoint);
  checkNotice(); // that a comment is being written is no longer true
  $("screen").focus({ preventScroll: true }); // the keys are for the page again
  return true;
}

/** Whether the thread is open with a text in it that is not sent: keys may be meant for it, wherever the focus is. */
export const isWriting = () => isOpen && box.value.trim() !== "";

/** @type {import("./picking.js").Take} */
function takePoint(at, position) {
  if (shown) setPoint({ frame: shown.timeline.frames[position], at });
  box.focus(); // who points goes on writing
}

/** @param {{frame: number, at: Point} | null} place */
function setPoint(place) {
  point = place;
  if (place) onFrame.checked = true;
  endPick(takePoint);
  showPins();
  showPlace();
}

function send() {
  const text = box.value.trim();
  if (!shown || !text) return box.focus();
  const { ticket_id: ticketId, lease_token: token } = shown.ticket;
  const frame = point?.frame ?? shown.timeline.frames[Math.max(0, player.shown)];
  /** @type {NewComment} */
  const body = {
    comment_id: api.newId(),
    created_at: new Date().toISOString(),
    text,
    frame_idx: onFrame.checked ? frame : null,
    x: onFrame.checked && point ? tenth(point.at[0]) : null,
    y: onFrame.checked && point ? tenth(point.at[1]) : null,
  };
  const thread = threads.get(ticketId) ?? new Map();
  threads.set(ticketId, thread.set(body.comment_id, ofMine(ticketId, body)));
  outbox.add({ person: session.person.name, ticketId, token, what: "comment", body });
  box.value = "";
  setPoint(null);
  checkNotice();
  show();
  player.refresh();
}

/** @param {number} value  rounded down, so that it stays within the picture */
const tenth = (value) => Math.floor(10 * value) / 10;

$("open-comments").addEventListener("click", () => (isOpen ? closeComments() : openComments()));
$("close-comments").addEventListener("click", closeComments);
$("comment-form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
onFrame.addEventListener("change", () => {
  if (!onFrame.matches(":focus-visible")) box.focus(); // after a click with the pointer
});
$("comment-point").addEventListener("click", ({ detail }) => {
  if (detail > 0) box.focus(); // a click takes the focus from what is written; who came by Tab keeps it here
  if (point) return setPoint(null);
  pick(takePoint);
  notice("Click on the place in the picture that the comment is about.", { until: () => !picks(takePoint) });
});
$("comments").addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeComments();
  else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
  else return;
  event.preventDefault();
  event.stopPropagation();
});
new ResizeObserver(showPins).observe($("stage"));
session.on("zoom", showPins);

/** @param {HeldTicket} held */
const keyOf = ({ person, ticket }) => `${person} ${ticket.ticket_id}`;

/** Another ticket is on screen. @param {HeldTicket} held */
function turnTo(held) {
  if (shown) {
    threads.delete(shown.ticket.ticket_id); // what was not sent stays in the outbox
    if (box.value) begun.set(keyOf(shown), box.value);
    else begun.delete(keyOf(shown));
  }
  shown = held;
  point = null;
  box.value = begun.get(keyOf(held)) ?? "";
  closeComments();
  show();
  void refresh(held.ticket.ticket_id);
}

session.on("ticket", turnTo);
session.on("saving", () => isOpen && show());
session.on("refused", ({ item, error }) => {
  if (item.what !== "comment") return;
  threads.get(item.ticketId)?.delete(item.body.comment_id);
  if (shown?.ticket.ticket_id === item.ticketId && !box.value) box.value = item.body.text; // to be changed and sent again
  show();
  notice(`A comment was refused: ${error.message}`, { over: true });
});
setInterval(() => {
  if (isOpen && shown && document.visibilityState === "visible") void refresh(shown.ticket.ticket_id);
}, AGAIN_MS);
