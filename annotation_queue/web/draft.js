// What an annotator has made of a ticket so far. It follows from the ticket's masklet, the operations that stand and
// the masks that the model made of them, and from nothing else: undo, a reload and another computer give the same.
// The server derives the same in refine.py.

import { area, empty } from "./rle.js";

export function standing(operations) {
  // {done, undone}: operations that stand, in order, and those that redo would bring back, the next one last.
  const made = new Map();
  const out = new Set();
  let back = [];
  for (const operation of operations) {
    const about = operation.payload.operation_id;
    if (operation.kind === "undo") {
      if (made.has(about) && !out.has(about)) back.push(about);
      out.add(about);
    } else if (operation.kind === "redo") {
      out.delete(about);
      back = back.filter((id) => id !== about);
    } else {
      made.set(operation.operation_id, operation);
      back = [];
    }
  }
  return { done: [...made.values()].filter((o) => !out.has(o.operation_id)), undone: back.map((id) => made.get(id)) };
}

function drawn(frame_idx, rle) {
  const area_px = area(rle);
  return { frame_idx, rle, area_px, score: 1, object_score: area_px ? 10 : -10, stability: 1 };
}

export class Draft {
  // frames: the annotated frame_idx. masklet: what the ticket is about, or null.
  constructor(ticket, masklet, info, frames) {
    this.ticket = ticket;
    this.base = masklet;
    this.info = info;
    this.frames = frames;
    this.operations = []; // {operation_id, kind, frame_idx, payload}
    this.versions = new Map(); // operation_id → {frames, checkpoint, round}
    this.refused = new Set(); // operations that the queue did not take
    this.derive();
  }

  add(operation) {
    if (this.operations.some((other) => other.operation_id === operation.operation_id)) return;
    this.operations.push(operation);
    this.derive();
  }

  answer(operationId, version) {
    this.versions.set(operationId, version);
    this.derive();
  }

  refuse(operationId) {
    this.refused.add(operationId);
    this.derive();
  }

  waiting() {
    // Operations that the model has not answered.
    return this.done.filter((o) => ["prompt", "propagate"].includes(o.kind) && !this.versions.has(o.operation_id));
  }

  derive() {
    const { done, undone } = standing(this.operations.filter((o) => !this.refused.has(o.operation_id)));
    this.done = done;
    this.undone = undone;
    this.masks = new Map();
    this.prompts = new Map();
    this.edited = new Set();
    this.locked = new Set();
    this.clicks = 0;
    this.checkpoint = this.base ? { checkpoint: this.base.checkpoint, round: this.base.round } : null;
    const { base } = this;
    base?.frame_idx.forEach((frame_idx, i) => {
      const [score, object_score, stability] = [base.score[i], base.object_score[i], base.stability[i]];
      this.masks.set(frame_idx, { frame_idx, rle: base.rle[i], area_px: base.area_px[i], score, object_score, stability });
    });
    for (const operation of done) this.apply(operation, this.versions.get(operation.operation_id));
  }

  apply({ kind, frame_idx: frame, payload }, version) {
    if (kind === "lock") payload.on === false ? this.locked.delete(frame) : this.locked.add(frame);
    else if (kind === "absent") {
      for (const i of this.frames) {
        if (i < payload.first || i > payload.last || this.locked.has(i)) continue;
        this.draw(i, empty(this.info.height, this.info.width));
      }
    } else if (kind === "stroke") this.draw(frame, payload.mask_rle);
    else if (kind === "submit") {
      for (const [i, rle] of Object.entries(payload.masks)) this.masks.set(Number(i), drawn(Number(i), rle));
    } else if (kind === "clear") {
      this.prompts.delete(frame);
      this.edited.delete(frame);
    } else if (kind === "prompt") {
      this.prompts.set(frame, payload);
      this.edited.add(frame);
      this.clicks++;
    }
    if (!version) return;
    for (const mask of version.frames) this.masks.set(mask.frame_idx, mask);
    this.checkpoint = { checkpoint: version.checkpoint, round: version.round };
  }

  draw(frame_idx, rle) {
    this.masks.set(frame_idx, drawn(frame_idx, rle));
    this.prompts.delete(frame_idx);
    this.edited.add(frame_idx);
  }

  unmasked() {
    return this.frames.filter((i) => !this.masks.has(i));
  }

  masklet() {
    // As it stands, for the eye and for the queue. A frame that nobody has masked counts as absent.
    const { height, width } = this.info;
    const nothing = { rle: empty(height, width), area_px: 0, score: 0, object_score: -10, stability: 1 };
    const column = (name) => this.frames.map((i) => (this.masks.get(i) ?? nothing)[name]);
    const first = [...this.prompts.entries()].sort(([a], [b]) => a - b)[0];
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
      prompt: this.base?.prompt ?? JSON.stringify(first ? { frame_idx: first[0], ...first[1] } : {}),
      parent_id: this.base?.masklet_id ?? null,
      edited_frame_count: Math.min(this.frames.length, (this.base?.edited_frame_count ?? 0) + this.edited.size),
      click_count: (this.base?.click_count ?? 0) + this.clicks,
      split: this.base?.split ?? "train",
    };
  }
}
