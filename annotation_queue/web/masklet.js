// What a page reads out of a masklet: where the object is present, how sure the model was, which frames to look at.
// Pure: a masklet as JSON in, numbers out.

import { iou } from "./rle.js";

export const LOW_SCORE = 0.75; // below this the model itself doubts the mask
const JUMP = 1.8; // area from one annotated frame to the next, as a ratio
const UNLIKE = 0.5; // IoU from one to the next, as a share of what it usually is: a fast object is no suspect

export class Timeline {
  // The annotated frames of a ticket, in order. Without a masklet: every `stride`-th frame, with no masks.
  constructor(masklet, info, stride) {
    const count = Math.ceil(info.frame_count / stride);
    this.frames = masklet ? masklet.frame_idx : Array.from({ length: count }, (_, i) => i * stride);
    this.areas = masklet ? masklet.area_px : null;
    this.scores = masklet ? masklet.score : null;
    this.present = this.frames.map((_, i) => (this.areas ? this.areas[i] > 0 : false));
    this.rles = masklet ? masklet.rle : null;
    this.suspects = masklet ? suspects(this) : [];
  }

  get length() {
    return this.frames.length;
  }

  get presentCount() {
    return this.present.filter(Boolean).length;
  }

  steadiness() {
    // IoU of each mask with the one before: (T,), 1 where there is nothing to compare.
    this.steady ??= this.frames.map((_, i) => (i && this.rles ? likeness(this.rles[i - 1], this.rles[i]) : 1));
    return this.steady;
  }

  lowest() {
    // [score, position] of the least sure mask, or null if there is none.
    let best = null;
    for (let i = 0; i < this.length; i++) {
      if (this.present[i] && (best === null || this.scores[i] < best[0])) best = [this.scores[i], i];
    }
    return best;
  }

  mean() {
    const seen = this.present.map((here, i) => (here ? this.scores[i] : null)).filter((score) => score !== null);
    return seen.length ? seen.reduce((a, b) => a + b, 0) / seen.length : null;
  }

  suspect(position) {
    return this.suspects.find((s) => s.position <= position && position <= s.last) ?? null;
  }
}

function suspects(timeline) {
  // [{position, last, why}]: stretches worth a look, each from its first frame to its last.
  const { areas, scores, present, length } = timeline;
  const steady = timeline.steadiness();
  const known = steady.filter((_, i) => i > 0 && present[i] && present[i - 1]).sort((a, b) => a - b);
  const usual = known[known.length >> 1] ?? 1;
  const found = [];
  for (let i = 0; i < length; i++) {
    const why = suspicion(i, areas, scores, present, steady[i] < UNLIKE * usual);
    if (why === null) continue;
    const before = found[found.length - 1];
    if (before && before.last === i - 1 && before.why === why) before.last = i;
    else found.push({ position: i, last: i, why });
  }
  return found;
}

function suspicion(i, areas, scores, present, unlike) {
  if (present[i] && scores[i] < LOW_SCORE) return "low score";
  if (i === 0) return null;
  if (present[i] !== present[i - 1]) return present[i] ? "object returns" : "object leaves";
  if (!present[i]) return null;
  const ratio = areas[i] / areas[i - 1];
  if (ratio > JUMP || ratio < 1 / JUMP) return "area jumps";
  return unlike ? "mask jumps" : null;
}

const LIKENESSES = 5000;
const likenesses = new Map();

function likeness(one, other) {
  // Their IoU. A correction changes a few masks of many: most pairs were compared before.
  const key = `${one} ${other}`;
  if (!likenesses.has(key)) {
    if (likenesses.size >= LIKENESSES) likenesses.clear();
    likenesses.set(key, iou(one, other));
  }
  return likenesses.get(key);
}
