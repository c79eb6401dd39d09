// Work that reached the queue after its lease had ended: a list of it, with pictures. The person who sent it applies it
// to the ticket again, as if it were done now, or dismisses it.

/** @import { KeptOperation, Masklet, Operation, Payload, VideoInfo } from "./types.js" */
/** @import { HeldTicket } from "./held.js" */
import * as api from "./api.js";
import { $, element, messageOf, pen } from "./dom.js";
import { fail } from "./login.js";
import { notice } from "./messages.js";
import { Overlay } from "./overlay.js";
import { player } from "./screen.js";
import { area, runs, spans } from "./rle.js";
import { sendOperation, untilAnswered } from "./sending.js";
import { session } from "./session.js";
import { newClaim, showInstead, take } from "./supply.js";
import { ASKS, many, VERDICTS } from "./words.js";

const PICTURES = 4; // of each ticket's work

/** @typedef {Payload & {verdict?: string, text?: string, masklet?: Masklet}} Content */

/**
 * The kept work on one ticket.
 * @typedef {object} Work
 * @property {string} ticketId
 * @property {string} videoId
 * @property {(KeptOperation & {content: Content})[]} operations
 */

/** @type {Work[]} */
let works = [];
const dialog = $("kept-list", HTMLDialogElement);

/** Ask the queue what it has kept of this person's work. */
export async function refreshKept() {
  const kept = await api.kept();
  /** @type {Map<string, Work>} */
  const found = new Map();
  for (const each of kept) {
    const work = found.get(each.ticket_id) ?? { ticketId: each.ticket_id, videoId: each.video_id, operations: [] };
    found.set(each.ticket_id, work);
    work.operations.push({ ...each, content: JSON.parse(each.payload) });
  }
  works = [...found.values()];
  $("kept").hidden = works.length === 0;
  $("kept").textContent = `Kept work: ${many(works.length, "ticket")}`;
  if (works.length === 0 && dialog.open) dialog.close();
  if (dialog.open) show();
}

// --- the list --------------------------------------------------------------------------------------------------------

function show() {
  $("kept-works").replaceChildren(...works.map(rowOf));
}

/** @param {Work} work */
function rowOf(work) {
  const said = element("p", { className: "said", role: "status" });
  const row = element("section", { className: "kept", ariaLabel: `Work on ${work.videoId}` });
  const actions = element("div", { className: "actions" },
    element("button", { type: "button", className: "primary", onclick: () => void apply(work, said) }, "Apply to the ticket"),
    element("button", { type: "button", className: "quiet bordered", onclick: () => void dismiss(work, said) }, "Dismiss"));
  const when = new Date(work.operations[0].created_at).toLocaleString();
  const pictures = element("div", { className: "pictures" });
  row.append(element("p", { className: "label" }, `Video ${work.videoId} · ${when}`), pictures,
    element("p", {}, describe(work)), said, actions);
  drawPictures(work, pictures).catch((error) => (said.textContent = `No picture: ${messageOf(error)}`));
  return row;
}

/** @type {Record<string, string>} */
const NAMES = {
  prompt: "prompt", stroke: "drawn mask", propagate: "propagation", lock: "lock", absent: "absent stretch",
  clear: "cleared frame", label: "label", undo: "undo", redo: "redo",
};

/** The work in words: "2 drawn masks, 1 prompt, the verdict Accept". @param {Work} work */
function describe({ operations }) {
  const parts = Object.entries(NAMES).flatMap(([kind, name]) => {
    const n = operations.filter((operation) => operation.kind === kind).length;
    return n ? [many(n, name)] : [];
  });
  for (const { kind, content } of operations) {
    if (kind === "submit") parts.push("a submitted masklet");
    const verdict = VERDICTS.find((each) => each.verdict === content.verdict);
    const words = content.text ? ` with the words “${content.text}”` : "";
    if (kind === "verdict" && verdict) parts.push(`the verdict ${verdict.title}${words}`);
  }
  return parts.join(", ");
}

/**
 * The masks and the points of the work, by frame.
 * @param {Work} work
 */
function framesOf({ operations }) {
  /** @type {Map<number, {rle?: string, points?: [number, number][]}>} */
  const frames = new Map();
  for (const { kind, frame_idx, content } of operations) {
    const { masklet } = content;
    masklet?.frame_idx.forEach((frame, i) => area(masklet.rle[i]) && frames.set(frame, { rle: masklet.rle[i] }));
    if (frame_idx === null || kind === "submit") continue;
    if (kind === "stroke") frames.set(frame_idx, { rle: content.mask_rle });
    else if (!frames.has(frame_idx)) frames.set(frame_idx, { points: content.points_xy });
  }
  const all = [...frames.entries()].sort(([a], [b]) => a - b);
  const step = Math.max(1, all.length / PICTURES);
  return Array.from({ length: Math.min(PICTURES, all.length) }, (_, n) => all[Math.floor(n * step)]);
}

/**
 * @param {Work} work
 * @param {HTMLElement} holder
 */
async function drawPictures(work, holder) {
  const info = await api.video(work.videoId);
  for (const [frame, { rle, points }] of framesOf(work)) {
    const text = `Frame ${frame}`;
    const canvas = element("canvas", { width: info.width, height: info.height, role: "img", ariaLabel: text });
    holder.append(element("figure", {}, canvas, element("figcaption", {}, text)));
    await drawPicture(canvas, info, frame, rle, points ?? []);
  }
}

/** @type {(canvas: HTMLCanvasElement, info: VideoInfo, frame: number, rle: string | undefined, points: [number, number][]) => Promise<void>} */
async function drawPicture(canvas, info, frame, rle, points) {
  const bitmap = await createImageBitmap(await api.frame(info.video_id, frame));
  const context = pen(canvas);
  context.drawImage(bitmap, 0, 0, info.width, info.height);
  bitmap.close();
  if (rle) {
    const overlay = new Overlay(info.height, info.width);
    overlay.fill(spans(runs(rle), info.height, info.width), [...player.colours.fill, 150]);
    overlay.drawOn(context);
  }
  context.fillStyle = "#fff";
  for (const [x, y] of points) context.fillRect(x - info.width / 100, y - info.width / 100, info.width / 50, info.width / 50);
}

// --- what becomes of it ----------------------------------------------------------------------------------------------

/**
 * @param {Work} work
 * @param {HTMLElement} said  for what went wrong
 */
async function dismiss(work, said) {
  await close(work, false).catch((error) => (said.textContent = messageOf(error)));
}

/**
 * @param {Work} work
 * @param {boolean} applied
 */
async function close({ operations }, applied) {
  const ids = operations.map(({ operation_id }) => operation_id);
  await untilAnswered(() => api.closeKept(ids, applied));
  await refreshKept();
}

/**
 * Take the ticket again, and do the work in it once more.
 * @param {Work} work
 * @param {HTMLElement} said  for what went wrong
 */
async function apply(work, said) {
  const here = session.heldFor(work.ticketId);
  const held = here ?? (await take(newClaim({ ticket_id: work.ticketId })).catch(() => null));
  if (!held || held.lost || held.finished) {
    said.textContent = "Another person has this ticket, or it is decided: the work can only be looked at or dismissed.";
    return;
  }
  if (here && here !== session.current) {
    said.textContent = "You hold this ticket: it comes next. Apply the work once it is on screen.";
    return;
  }
  dialog.close();
  if (held !== session.current) showInstead(held);
  again(work, held);
  const verdict = work.operations.find(({ kind }) => kind === "verdict")?.content.verdict;
  notice(verdict
    ? `Your verdict was ${VERDICTS.find((each) => each.verdict === verdict)?.title}. Look, and give it again.`
    : `Your work is in the ticket again. ${ASKS[held.ticket.kind].name} on from there.`, { over: true });
  await close(work, true).catch(fail);
}

/**
 * @param {Work} work
 * @param {HeldTicket} held
 */
function again({ operations }, held) {
  const { draft } = held;
  if (!draft) return;
  /** @type {Map<string, string>} */
  const ids = new Map(); // of the operations then → now
  /** @type {(kind: string, frame_idx: number | null, payload: Payload, then?: string) => void} */
  const act = (kind, frame_idx, payload, then) => {
    /** @type {Operation} */
    const operation = { operation_id: api.newId(), kind, frame_idx, payload, created_at: new Date().toISOString() };
    if (then) ids.set(then, operation.operation_id);
    draft.add(operation);
    sendOperation(held, operation);
  };
  for (const { operation_id, kind, frame_idx, content } of operations) {
    const { masklet } = content;
    if (kind === "submit" && masklet) {
      masklet.frame_idx.forEach((frame, i) => {
        const now = draft.masks.get(frame)?.rle;
        if (now !== masklet.rle[i]) act("stroke", frame, { mask_rle: masklet.rle[i] });
      });
    } else if (kind in NAMES) {
      const about = content.operation_id;
      act(kind, frame_idx, about ? { ...content, operation_id: ids.get(about) ?? about } : content, operation_id);
    }
  }
  session.emit("draft");
}

$("kept").addEventListener("click", () => {
  dialog.showModal();
  show();
});
session.on("refused", ({ error }) => api.isLost(error) && refreshKept().catch(() => {}));
