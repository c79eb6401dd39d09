// Work that reached the queue after its lease had ended, by ticket and person: what it is in words, and its pictures.
// Knows nothing of the page around it.

/** @import { Colour, KeptOperation, Masklet, Payload, VideoInfo } from "./types.js" */
import * as api from "./api.js";
import { element, pen } from "./dom.js";
import { Overlay } from "./overlay.js";
import { area, runs, spans } from "./rle.js";
import { many, VERDICTS } from "./words.js";

const PICTURES = 4; // of each ticket's work
const WIDTH = 320; // px of a picture

/** Each picture is drawn here at the size of its video, where the masks fit, before it is made small. */
const full = element("canvas");

/** @typedef {Payload & {verdict?: string, text?: string, masklet?: Masklet}} Content */

/**
 * The kept work of one person on one ticket.
 * @typedef {object} Work
 * @property {string} ticketId
 * @property {string} videoId
 * @property {string} person
 * @property {(KeptOperation & {content: Content})[]} operations
 */

/**
 * The operations as works, in their order.
 * @param {KeptOperation[]} operations
 */
export function worksOf(operations) {
  /** @type {Map<string, Work>} */
  const found = new Map();
  for (const each of operations) {
    const { ticket_id: ticketId, video_id: videoId, person } = each;
    const key = `${person} ${ticketId}`;
    const work = found.get(key) ?? { ticketId, videoId, person, operations: [] };
    found.set(key, work);
    work.operations.push({ ...each, content: JSON.parse(each.payload) });
  }
  return [...found.values()];
}

/** The kinds of operations that can be done again, in words. @type {Record<string, string>} */
export const NAMES = {
  prompt: "prompt", stroke: "drawn mask", propagate: "propagation", stop: "stop", lock: "lock", absent: "absent stretch",
  clear: "cleared frame", label: "label", undo: "undo", redo: "redo",
};

/** The work in words: "2 drawn masks, 1 prompt, the verdict Accept". @param {Work} work */
export function describe({ operations }) {
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
 * The operations to do again. A propagation that was stopped goes as far as it had come: the frames behind that are as the
 * person wanted them. One that had made no mask is left out. A stop stays only if its propagation is not in this work.
 * @param {Work} work
 */
export function repeated({ operations }) {
  const made = new Set(operations.flatMap(({ kind, operation_id }) => (kind === "propagate" ? [operation_id] : [])));
  const stops = new Map(operations.flatMap(({ kind, content }) => (kind === "stop" ? [[content.operation_id, content]] : [])));
  const isLeftOut = (/** @type {string} */ id) => made.has(id) && stops.has(id) && typeof stops.get(id)?.last !== "number";
  return operations.flatMap((each) => {
    const about = each.content.operation_id ?? "";
    if (isLeftOut(each.operation_id) || isLeftOut(about) || (each.kind === "stop" && made.has(about))) return [];
    const last = each.kind === "propagate" ? stops.get(each.operation_id)?.last : undefined;
    return typeof last === "number" ? [{ ...each, content: endingAt(last, each) }] : [each];
  });
}

/**
 * The content of a propagation that ends at this frame.
 * @param {number} last  the last frame that it had reached; one in both directions goes forward first
 * @param {Work["operations"][number]} propagation
 * @returns {Content}
 */
function endingAt(last, { frame_idx, content }) {
  if (last >= (frame_idx ?? 0)) return { direction: "forward", last };
  return content.direction === "backward" ? { ...content, last } : { ...content, first: last };
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
 * Draw the pictures, until their holder leaves the page.
 * @param {Work} work
 * @param {HTMLElement} holder
 * @param {Colour} colour  of the masks
 */
export async function drawPictures(work, holder, colour) {
  const info = await api.video(work.videoId);
  for (const [frame, { rle, points }] of framesOf(work)) {
    if (!holder.isConnected) return;
    const text = `Frame ${frame}`;
    const size = { width: WIDTH, height: Math.round((WIDTH * info.height) / info.width) };
    const canvas = element("canvas", { ...size, role: "img", ariaLabel: text });
    holder.append(element("figure", {}, canvas, element("figcaption", {}, text)));
    await drawPicture(canvas, info, frame, rle, points ?? [], colour);
  }
}

/** @type {(canvas: HTMLCanvasElement, info: VideoInfo, frame: number, rle: string | undefined, points: [number, number][], colour: Colour) => Promise<void>} */
async function drawPicture(canvas, info, frame, rle, points, colour) {
  const bitmap = await createImageBitmap(await api.frame(info.video_id, frame));
  Object.assign(full, { width: info.width, height: info.height }); // empties it
  const context = pen(full);
  context.drawImage(bitmap, 0, 0, info.width, info.height);
  bitmap.close();
  if (rle) {
    const overlay = new Overlay(info.height, info.width);
    overlay.fill(spans(runs(rle), info.height, info.width), [...colour, 150]);
    overlay.drawOn(context);
  }
  context.fillStyle = "#fff";
  for (const [x, y] of points) context.fillRect(x - info.width / 100, y - info.width / 100, info.width / 50, info.width / 50);
  const small = pen(canvas);
  small.imageSmoothingQuality = "high";
  small.drawImage(full, 0, 0, canvas.width, canvas.height);
}
