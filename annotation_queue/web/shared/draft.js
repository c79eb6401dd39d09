// What an annotator has made of a ticket so far. It follows from the ticket's masklet, the operations that are not
// undone and the model's answers to them, and from nothing else: a reload, an undo and another computer give the same.
// The server derives the same in annotation_queue/draft.py; a test compares the two.

/** @import { FrameMask, Masklet, Operation, Payload, Prompt, Ticket, Version, VideoInfo } from "./types.js" */
import { clicksOf } from "./effort.js";
import { area, empty } from "./rle.js";

const ANSWERED = ["prompt", "propagate"]; // kinds of operations that the model answers

/** @param {Operation} operation */
export const isAnswered = ({ kind }) => ANSWERED.includes(kind);

/** Whether a version has all its masks; false also without a version. @param {Version | undefined} version */
const isComplete = (version) => version !== undefined && version.complete !== false;

/**
 * `done`: the operations that are not undone, in order. `undone`: those that redo would bring back, the next one last.
 * Neither has a "stop": undoing its propagation takes all of that back.
 * @param {Operation[]} operations
 */
export function standing(operations) {
  /** @type {Map<string, Operation>} */
  const made = new Map();
  const out = new Set();
  /** @type {string[]} */
  let back = [];
  for (const operation of operations) {
    const about = operation.payload.operation_id ?? "";
    if (operation.kind === "undo") {
      if (made.has(about) && !out.has(about)) back.push(about);
      out.add(about);
    } else if (operation.kind === "redo") {
      out.delete(about);
      back = back.filter((id) => id !== about);
    } else if (operation.kind !== "stop") {
      made.set(operation.operation_id, operation);
      back = [];
    }
  }
  const done = [...made.values()].filter((operation) => !out.has(operation.operation_id));
  return { done, undone: back.flatMap((id) => made.get(id) ?? []) };
}

/**
 * A mask that a person has drawn.
 * @param {number} frame_idx
 * @param {string} rle
 * @returns {FrameMask}
 */
function drawn(frame_idx, rle) {
  const area_px = area(rle);
  return { frame_idx, rle, area_px, score: 1, object_score: area_px ? 10 : -10, stability: 1 };
}

export class Draft {
  /** @type {Operation[]} */ done = []; // not undone
  /** @type {Operation[]} */ undone = []; // redo brings back the last one
  /** @type {Map<number, FrameMask>} */ masks = new Map(); // by frame_idx
  /** @type {Map<number, Prompt>} */ prompts = new Map(); // by frame_idx
  /** @type {Set<number>} */ edited = new Set(); // frames that a person has prompted or drawn
  /** @type {Map<number, FrameMask | undefined>} */ before = new Map(); // by edited frame: its mask before the first edit
  /** @type {Set<number>} */ locked = new Set();
  clicks = 0; // by the rule of effort.js
  /** @type {{checkpoint: string, round: number} | null} */ checkpoint = null; // of the last masks of a model
  /** @type {Operation[]} */ operations = [];
  /** @type {Operation[]} */ stops = []; // each ends a propagation
  /** @type {Map<string, Version>} */ versions = new Map(); // the model's answers, by operation_id
  /** @type {Set<string>} */ refused = new Set(); // operations that the queue has not accepted

  /**
   * @param {Ticket} ticket
   * @param {Masklet | null} masklet  the masklet to correct, if there is one
   * @param {Pick<VideoInfo, "height" | "width">} info
   * @param {number[]} frames  frame_idx of the annotated frames
   */
  constructor(ticket, masklet, info, frames) {
    this.ticket = ticket;
    this.base = masklet;
    this.info = info;
    this.frames = frames;
    this.derive();
  }

  /** @param {Operation} operation */
  add(operation) {
    if (this.operations.some((other) => other.operation_id === operation.operation_id)) return;
    this.operations.push(operation);
    this.derive();
  }

  /**
   * @param {string} operationId
   * @param {Version} version
   */
  answer(operationId, version) {
    this.versions.set(operationId, version);
    this.derive();
  }

  /**
   * A mask of a propagation that is under way.
   * @param {string} operationId
   * @param {FrameMask} mask
   */
  receive(operationId, mask) {
    const known = this.versions.get(operationId);
    const others = (known?.frames ?? []).filter(({ frame_idx }) => frame_idx !== mask.frame_idx);
    this.answer(operationId, { checkpoint: "", round: 0, ...known, frames: [...others, mask], complete: false });
  }

  /** @param {string} operationId */
  refuse(operationId) {
    this.refused.add(operationId);
    this.derive();
  }

  /** Operations that the model has not answered yet, apart from propagations that were stopped. */
  waiting() {
    const stopped = new Set(this.stops.map(({ payload }) => payload.operation_id));
    return this.done.filter((o) =>
      isAnswered(o) && !stopped.has(o.operation_id) && !isComplete(this.versions.get(o.operation_id)));
  }

  /** Stops of propagations whose last masks have not come yet. */
  stopping() {
    const standing = new Set(this.done.map(({ operation_id }) => operation_id));
    const about = (/** @type {Operation} */ { payload }) => payload.operation_id ?? "";
    return this.stops.filter((stop) => standing.has(about(stop)) && !isComplete(this.versions.get(about(stop))));
  }

  derive() {
    const accepted = this.operations.filter((o) => !this.refused.has(o.operation_id));
    const { done, undone } = standing(accepted);
    this.stops = accepted.filter(({ kind }) => kind === "stop");
    this.clicks = clicksOf(accepted);
    this.done = done;
    this.undone = undone;
    this.masks = new Map();
    this.prompts = new Map();
    this.edited = new Set();
    this.before = new Map();
    this.locked = new Set();
    this.checkpoint = this.base ? { checkpoint: this.base.checkpoint, round: this.base.round } : null;
    const { base } = this;
    base?.frame_idx.forEach((frame_idx, i) => {
      this.masks.set(frame_idx, {
        frame_idx,
        rle: base.rle[i],
        area_px: base.area_px[i],
        score: base.score[i],
        object_score: base.object_score[i],
        stability: base.stability[i],
      });
    });
    const spared = new Set(this.stops.map(({ payload }) => `${payload.operation_id} ${payload.spare}`));
    for (const operation of done) {
      const version = this.versions.get(operation.operation_id);
      const frames = version?.frames.filter(({ frame_idx }) => !spared.has(`${operation.operation_id} ${frame_idx}`));
      this.apply(operation, version && { ...version, frames: frames ?? [] });
    }
  }

  /**
   * @param {Operation} operation
   * @param {Version | undefined} version
   */
  apply({ kind, frame_idx, payload }, version) {
    const frame = frame_idx ?? -1; // "absent" and "submit" are about several frames
    if (kind === "lock") payload.on === false ? this.locked.delete(frame) : this.locked.add(frame);
    else if (kind === "absent") {
      for (const i of this.frames) {
        if (i < (payload.first ?? 0) || i > (payload.last ?? -1) || this.locked.has(i)) continue;
        this.draw(i, empty(this.info.height, this.info.width));
      }
    } else if (kind === "stroke") this.draw(frame, payload.mask_rle ?? "");
    else if (kind === "submit") {
      for (const [i, rle] of Object.entries(payload.masks ?? {})) this.masks.set(Number(i), drawn(Number(i), rle));
    } else if (kind === "clear") {
      this.forget(frame);
    } else if (kind === "prompt") {
      this.prompts.set(frame, promptOf(payload));
      this.edit(frame);
    }
    if (!version) return;
    for (const mask of version.frames) this.masks.set(mask.frame_idx, mask);
    if (version.frames.length) this.checkpoint = { checkpoint: version.checkpoint, round: version.round };
  }

  /**
   * @param {number} frame_idx
   * @param {string} rle
   */
  draw(frame_idx, rle) {
    this.edit(frame_idx);
    this.masks.set(frame_idx, drawn(frame_idx, rle));
    this.prompts.delete(frame_idx);
  }

  /** @param {number} frame  which a person edits; its mask has not changed yet */
  edit(frame) {
    if (!this.edited.has(frame)) this.before.set(frame, this.masks.get(frame));
    this.edited.add(frame);
  }

  /** @param {number} frame  whose edits are all taken back: its mask is again the one from before them, or none */
  forget(frame) {
    this.prompts.delete(frame);
    if (!this.edited.delete(frame)) return;
    const mask = this.before.get(frame);
    this.before.delete(frame);
    if (mask) this.masks.set(frame, mask);
    else this.masks.delete(frame);
  }

  unmasked() {
    return this.frames.filter((i) => !this.masks.has(i));
  }

  /** The id of the last operation that the masks follow from; "" if there is none. */
  get lastOperationId() {
    return this.operations.filter((o) => !this.refused.has(o.operation_id)).at(-1)?.operation_id ?? "";
  }

  /**
   * The masklet as it is now, to be shown. A frame without a mask counts as absent.
   * @returns {Masklet}
   */
  masklet() {
    const { height, width } = this.info;
    const nothing = { rle: empty(height, width), area_px: 0, score: 0, object_score: -10, stability: 1 };
    /** @type {<K extends keyof typeof nothing>(name: K) => (typeof nothing)[K][]} */
    const column = (name) => this.frames.map((i) => (this.masks.get(i) ?? nothing)[name]);
    return {
      video_id: this.ticket.video_id,
      batch_id: this.ticket.batch_id,
      height,
      width,
      frame_idx: this.frames,
      rle: column("rle"),
      area_px: column("area_px"),
      score: column("score"),
      object_score: column("object_score"),
      stability: column("stability"),
      kind: "manual",
      phase: this.ticket.phase,
      checkpoint: this.checkpoint?.checkpoint ?? "by hand",
      round: this.checkpoint?.round ?? 0,
      prompt: this.base?.prompt ?? "{}",
      parent_id: this.base?.masklet_id ?? null,
      edited_frame_count: Math.min(this.frames.length, (this.base?.edited_frame_count ?? 0) + this.edited.size),
      click_count: (this.base?.click_count ?? 0) + this.clicks,
      split: this.base?.split ?? "train",
    };
  }
}

/**
 * @param {Payload} payload
 * @returns {Prompt}
 */
const promptOf = (payload) => ({ ...payload, points_xy: payload.points_xy ?? [], labels: payload.labels ?? [] });
