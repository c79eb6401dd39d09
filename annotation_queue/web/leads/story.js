// One ticket as a lead looks at it: its picture and masks, its log as a replay, two versions side by side.

/** @import { Card, History, Logged, Masklet, Me } from "../shared/types.js" */
import { controlsFor } from "./acts.js";
import * as api from "../shared/api.js";
import { labelOf, standing } from "./cards.js";
import { $, element, messageOf, replace } from "../shared/dom.js";
import { Frames } from "../shared/frames.js";
import { drawLanes, positionAt } from "./lanes.js";
import { KINDS, saidIn } from "../shared/log_words.js";
import { batches, named, videos } from "../shared/names.js";
import { Picture } from "./picture.js";
import { likeness, Replay } from "./replay.js";
import { area } from "../shared/rle.js";
import { session } from "../shared/session.js";
import { colour } from "../shared/theme.js";
import { commentItem, nearest } from "../shared/thread.js";
import { ASKS, REASONS } from "../shared/words.js";

/** @type {{one: import("./picture.js").Look, other: import("./picture.js").Look}} */
const LOOKS = {
  one: { fill: [165, 123, 255], line: [214, 196, 255] },
  other: { fill: [255, 190, 70], line: [255, 222, 160] },
};

/**
 * What is on screen.
 * @typedef {object} Open
 * @property {History} history
 * @property {Replay} replay
 * @property {Frames} frames
 * @property {number} fps
 * @property {Picture} one
 * @property {Picture | null} other
 * @property {Map<number, string> | null} beside  the masks that are compared with
 * @property {Seen} seen
 * @property {number} step
 * @property {number} position
 */

/**
 * What follows from the step and the version beside it, whatever frame is on screen.
 * @typedef {object} Seen
 * @property {boolean[]} one  whether the object is there, frame by frame
 * @property {boolean[] | null} other  the same of the version beside it
 * @property {ReturnType<typeof likeness> | null} alike
 * @property {Set<number>} changed  frames that the step changes
 */

/** @type {Open | null} */
let open = null;
let turn = 0; // of the questions: an answer to an older one is dropped

const scrub = $("scrub", HTMLInputElement);
const compare = $("compare", HTMLSelectElement);
const lanes = $("lanes", HTMLCanvasElement);

/**
 * Show a ticket.
 * @param {string} id
 * @param {Me} me
 * @param {string[]} people  to whom it can be assigned
 * @param {(ids: string[]) => unknown} onact  something was done to it
 */
export async function showStory(id, me, people, onact) {
  close();
  const mine = ++turn;
  $("ticket-title").textContent = "…";
  const history = await api.story(id);
  const { ticket } = history.card;
  const [info, masklet] = await Promise.all([
    api.video(ticket.video_id),
    ticket.masklet_id ? api.masklet(id).catch(without) : null,
  ]);
  if (mine !== turn) return;
  const replay = new Replay(history, masklet, info, me.stride);
  const frames = new Frames(ticket.video_id, replay.frames);
  const canvas = screenOf("This step");
  open = {
    history, replay, frames, fps: info.fps, one: new Picture(canvas, info, LOOKS.one), other: null, beside: null,
    step: 0, position: 0, seen: seenIn(replay, 0, null),
  };
  frames.onready = () => draw();
  frames.ontrouble = (error) => error !== null && ($("likeness").textContent = `No picture: ${messageOf(error)}`);
  scrub.max = String(replay.frames.length - 1);
  const doing = {
    tickets: () => [id], people, frame: () => open?.replay.frames[open.position] ?? null,
    ondone: (/** @type {string[]} */ ids) => Promise.all([refresh(id), onact(ids)]),
  };
  $("ticket-acts").replaceChildren(...controlsFor(doing));
  showAbout(history);
  void showThread(id);
  showCompared(history);
  $("screens").replaceChildren(figureOf(canvas, "This step"));
  step(replay.length - 1, bestOf(replay));
}

/** A ticket whose masklet was taken back meanwhile has none. @param {unknown} error */
function without(error) {
  if (api.statusOf(error) === 404) return null;
  throw error;
}

/** No ticket is shown any more. */
export function close() {
  turn++;
  open?.frames.close();
  open = null;
  $("screens").classList.remove("two");
  for (const id of ["screens", "log", "line", "thread", "ticket-facts", "ticket-acts"]) $(id).replaceChildren();
  $("likeness").textContent = "";
  $("talk").hidden = true;
}

/** Ask for what has changed beside the log: who has it, what leads did. @param {string} id */
async function refresh(id) {
  const history = await api.story(id);
  if (open?.history.card.ticket.ticket_id !== id) return;
  open.history = { ...open.history, card: history.card, line: history.line, acts: history.acts, leases: history.leases };
  showAbout(open.history);
  markStep();
  await showThread(id);
}

/** The comments on a ticket. Its pins are on the picture at the desk. @param {string} id */
async function showThread(id) {
  const thread = await api.comments(id).catch(() => []); // the next act asks again
  if (open?.history.card.ticket.ticket_id !== id) return;
  $("talk").hidden = thread.length === 0;
  const seek = (/** @type {number} */ frameIdx) => open && goTo(nearest(open.replay.frames, frameIdx));
  $("thread").replaceChildren(...thread.map((comment, n) => {
    const item = commentItem(comment, n, new Date(comment.created_at).toLocaleString(), seek);
    const href = `/#ticket=${encodeURIComponent(id)}&frame=${comment.frame_idx}`;
    if (comment.x !== null) item.querySelector(".said-by")?.append(" ", element("a", { href }, "see the point"));
    return item;
  }));
}

/** The position where the object is largest at the end. @param {Replay} replay */
function bestOf(replay) {
  const masks = replay.masksAt(replay.length - 1);
  const areas = replay.frames.map((frame) => area(masks.get(frame) ?? ""));
  return Math.max(0, areas.indexOf(Math.max(...areas)));
}

// --- the pictures ----------------------------------------------------------------------------------------------------

/** @param {string} name */
const screenOf = (name) => element("canvas", { className: "screen", role: "img", ariaLabel: `Frame of the video: ${name}` });

/** @type {(canvas: HTMLCanvasElement, title: string) => HTMLElement} */
const figureOf = (canvas, title) => element("figure", {}, canvas, element("figcaption", {}, title));

/** @param {number} position */
function goTo(position) {
  if (!open) return;
  open.position = Math.max(0, Math.min(open.replay.frames.length - 1, position));
  open.frames.want(open.position);
  scrub.value = String(open.position);
  const frame = open.replay.frames[open.position];
  scrub.setAttribute("aria-valuetext", `frame ${frame}`);
  $("at").textContent = `frame ${frame} · ${(frame / open.fps).toFixed(2)} s`;
  draw();
}

/** @type {(replay: Replay, step: number, beside: Map<number, string> | null) => Seen} */
function seenIn(replay, step, beside) {
  const changed = new Set(replay.changedBy(step));
  const masks = replay.masksAt(step);
  const shows = (/** @type {Map<number, string>} */ of) => replay.frames.map((i) => area(of.get(i) ?? "") > 0);
  return { one: shows(masks), other: beside && shows(beside), alike: beside && likeness(masks, beside, area), changed };
}

/** Draw the lanes, and the frame on screen if it is here. */
function draw() {
  if (!open) return;
  const { replay, frames, one, other, beside, step, position, seen } = open;
  const frame = replay.frames[position];
  const bitmap = frames.ready(position);
  if (bitmap) {
    one.draw(bitmap, frame, replay.masksAt(step).get(frame), replay.promptAt(step, frame));
    other?.draw(bitmap, frame, beside?.get(frame));
  }
  const { alike } = seen;
  const ious = alike && replay.frames.map((i) => alike.each.get(i) ?? 1);
  drawLanes(lanes, { frames: replay.frames, position, ...seen, alike: ious }, colour);
  const mean = alike?.mean === null ? "–" : alike?.mean.toFixed(3);
  $("likeness").textContent = ious ? `IoU on this frame ${ious[position].toFixed(3)}, mean ${mean}` : "";
}

/** @param {History} history */
function showCompared({ line }) {
  const seen = new Set();
  const versions = line.filter(({ ticket }) => ticket.masklet_id && !seen.has(ticket.masklet_id) && seen.add(ticket.masklet_id));
  const options = versions.map(({ ticket }, n) => {
    const text = `${n + 1} · ${ticket.made_by === null ? "by the model" : `by ${ticket.made_by}`}`;
    return element("option", { value: ticket.ticket_id }, text);
  });
  compare.replaceChildren(element("option", { value: "" }, "nothing"), ...options);
}

async function showBeside() {
  const mine = open;
  if (!mine) return;
  const { value } = compare;
  /** @type {Masklet | null} */
  const masklet = value ? await api.masklet(value) : null;
  if (open !== mine || compare.value !== value) return;
  mine.beside = masklet && new Map(masklet.frame_idx.map((frame, i) => [frame, masklet.rle[i]]));
  mine.seen = seenIn(mine.replay, mine.step, mine.beside);
  mine.other = null;
  const figures = [figureOf(mine.one.canvas, "This step")];
  if (masklet) {
    const text = `Version ${compare.selectedOptions[0].textContent}`;
    const canvas = screenOf(text);
    mine.other = new Picture(canvas, mine.one.info, LOOKS.other);
    figures.push(figureOf(canvas, text));
  }
  $("screens").replaceChildren(...figures);
  $("screens").classList.toggle("two", masklet !== null);
  showLegend();
  draw();
}

function showLegend() {
  const key = (/** @type {string} */ name, /** @type {string} */ text) =>
    element("span", {}, element("i", { className: `key ${name}` }), text);
  $("lanes-legend").replaceChildren(
    key("one", "the object is there at this step"), key("changed", "changed by this step"),
    ...(open?.beside ? [key("other", "there in the other version"), key("alike", "IoU of both, 0 to 1; red below 0.5")] : []),
  );
}

// --- what is known of it ---------------------------------------------------------------------------------------------

/** @param {History} history */
function showAbout(history) {
  const { card } = history;
  const { ticket } = card;
  const by = ticket.state === "done" && ticket.finished_by ? ` by ${ticket.finished_by}` : "";
  $("ticket-title").textContent = `${ASKS[ticket.kind].name} · ${standing(card)[1]}${by}`;
  $("ticket-facts").replaceChildren(...factsOf(card).flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", typeof value === "string" ? { title: value } : {}, value)]));
  $("line").replaceChildren(...history.line.map((each) => {
    const isThis = each.ticket.ticket_id === ticket.ticket_id;
    const link = element("a", { href: `#ticket=${encodeURIComponent(each.ticket.ticket_id)}` },
      ASKS[each.ticket.kind].name);
    if (isThis) link.setAttribute("aria-current", "true");
    const [tone, text] = standing(each);
    const who = each.ticket.finished_by ?? each.ticket.leased_by ?? each.assigned_to ?? "";
    return element("li", {}, link, element("span", { className: `tone ${tone}` }, text), element("span", { className: "soft" }, who));
  }));
  showLog(history);
}

/** @param {Card} card @returns {[name: string, value: string | Node][]} */
function factsOf(card) {
  const { ticket } = card;
  const date = (/** @type {number | null} */ at) => (at === null ? "–" : new Date(1000 * at).toLocaleString());
  const share = (/** @type {number | null} */ value) => (value === null ? "–" : value.toFixed(2));
  return [
    ["Ticket", ticket.ticket_id],
    ["Batch", ticket.batch_id ? named(batches, ticket.batch_id, "batch") : "–"],
    ["Video", named(videos, ticket.video_id, "video")],
    ["Opened", date(card.created_at)],
    ["Masklet made by", ticket.made_by ?? (ticket.masklet_id ? "the model" : "nobody yet")],
    ...(labelOf(card) ? /** @type {[string, string][]} */ ([["Label", labelOf(card)]]) : []),
    ["Mean score", share(card.score)],
    ["Agreement", share(card.agreement)],
    ["Priority", String(ticket.priority)],
    ...(card.assigned_to ? /** @type {[string, string][]} */ ([["Assigned", `to ${card.assigned_to} by ${card.assigned_by}`]]) : []),
    ...(ticket.leased_by ? /** @type {[string, string][]} */ ([["Held by", ticket.leased_by]]) : []),
    ...(ticket.reasons.length ? /** @type {[string, string][]} */ ([["Reasons", ticket.reasons.map((r) => REASONS[r]).join(", ")]]) : []),
    ...(card.gold ? /** @type {[string, string][]} */ ([["Gold", "its answer is known"]]) : []),
  ];
}

// --- the log ---------------------------------------------------------------------------------------------------------

/**
 * The log: operations are steps; leases and acts of leads are told between them, by the queue's clock.
 * @param {History} history
 */
function showLog({ operations, leases, acts }) {
  /** @type {{at: number, item: HTMLElement}[]} */
  const told = [
    ...leases.map((lease) => ({ at: lease.claimed_at, item: toldAt(lease.claimed_at, `${lease.person} takes the ticket`) })),
    ...acts.map(({ at, actor, action, detail }) =>
      ({ at, item: toldAt(at, `${actor}: ${action}${sentence(detail)}`) })),
  ];
  const steps = operations.map((logged, n) => ({ at: logged.received_at, item: stepOf(logged, n + 1) }));
  const all = [...steps, ...told].sort((a, b) => a.at - b.at); // stable: steps stay in their order
  replace($("log"), stepItem(0, "As it came", ""), ...all.map(({ item }) => item));
}

/** @param {string} detail  of a line of the audit */
function sentence(detail) {
  const { said, person } = JSON.parse(detail);
  return said ? `: ${said}` : person ? ` of ${person}` : "";
}

/** @type {(at: number, text: string) => HTMLElement} */
const toldAt = (at, text) =>
  element("li", { className: "told" }, element("span", { className: "when" }, clock(at)), element("span", {}, text));

/** @param {number} at  s since the epoch */
const clock = (at) => new Date(1000 * at).toLocaleTimeString();

/** @type {(logged: Logged, n: number) => HTMLElement} */
function stepOf({ operation, received_at: at, branch, closed }, n) {
  const { person, kind, frame_idx: frame } = operation;
  const parts = [KINDS[kind] ?? kind, saidIn(operation), frame === null ? "" : `frame ${frame}`].filter(Boolean);
  const fate = branch ? ` · came late: ${closed ?? "counts nowhere"}` : "";
  return stepItem(n, parts.join(" · "), `${clock(at)} ${person}${fate}`);
}

/** @type {(n: number, text: string, about: string) => HTMLElement} */
function stepItem(n, text, about) {
  const button = element("button", { type: "button", className: "step", onclick: () => step(n) },
    element("b", {}, text), element("span", { className: "soft" }, about));
  button.dataset.step = String(n);
  return element("li", {}, button);
}

/**
 * Go to a step, and to the frame that it is about.
 * @param {number} n
 * @param {number} [position]
 */
function step(n, position) {
  if (!open) return;
  const { replay } = open;
  open.step = Math.max(0, Math.min(replay.length - 1, n));
  open.seen = seenIn(replay, open.step, open.beside);
  markStep();
  showLegend();
  const frame = replay.log[open.step - 1]?.operation.frame_idx ?? [...open.seen.changed][0];
  const about = frame === undefined ? -1 : replay.frames.indexOf(frame);
  goTo(position ?? (about >= 0 ? about : open.position));
}

function markStep() {
  for (const button of $("log").querySelectorAll("button")) {
    const isThis = Number(button.dataset.step) === open?.step;
    isThis ? button.setAttribute("aria-current", "step") : button.removeAttribute("aria-current");
    if (isThis) keepInView(button);
  }
}

/** Scroll the log, and nothing around it, so that a step is seen. @param {HTMLElement} button */
function keepInView(button) {
  const log = $("log");
  const [inside, around] = [button.getBoundingClientRect(), log.getBoundingClientRect()];
  if (inside.top < around.top) log.scrollTop -= around.top - inside.top;
  else if (inside.bottom > around.bottom) log.scrollTop += inside.bottom - around.bottom;
}

/**
 * A key was pressed. Returns whether it did something.
 * @param {string} key
 */
export function pressed(key) {
  if (!open) return false;
  if (key === "ArrowLeft") goTo(open.position - 1);
  else if (key === "ArrowRight") goTo(open.position + 1);
  else if (key === "ArrowUp") step(open.step - 1);
  else if (key === "ArrowDown") step(open.step + 1);
  else return false;
  return true;
}

session.on("theme", draw);
new ResizeObserver(draw).observe(lanes);
scrub.addEventListener("input", () => goTo(Number(scrub.value)));
$("frame-back").addEventListener("click", () => open && goTo(open.position - 1));
$("frame-on").addEventListener("click", () => open && goTo(open.position + 1));
compare.addEventListener("change", () => void showBeside().catch((error) => ($("likeness").textContent = messageOf(error))));
lanes.addEventListener("pointerdown", (event) => open && goTo(positionAt(lanes, event.offsetX, open.replay.frames.length)));
lanes.addEventListener("pointermove", (event) => {
  if (open && event.buttons & 1) goTo(positionAt(lanes, event.offsetX, open.replay.frames.length));
});
new ResizeObserver(draw).observe(lanes);
