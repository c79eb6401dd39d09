// A masklet over time: where the object is present, how sure the model was, which frames are suspect.
// Pure: a masklet as JSON in, numbers out.

/** @import { Masklet, VideoInfo } from "./types.js" */
import { iou } from "./rle.js";

/** @typedef {"low score" | "object returns" | "object leaves" | "area jumps" | "mask jumps"} Why */
/** @typedef {{position: number, last: number, why: Why}} Suspect  a stretch of frames, `last` included */

export const LOW_SCORE = 0.75; // below this the model itself doubts the mask, unless a person moves the threshold
const JUMP = 1.8; // area from one annotated frame to the next, as a ratio
const UNLIKE = 0.5; // IoU with the mask before, as a share of the median: a fast object is not suspect

/** The annotated frames of a ticket, in order; a "position" is an index into them. */
export class Timeline {
  /** @type {number[] | null} */ #steadiness = null;

  /**
   * @param {Masklet | null} masklet  null: every `stride`-th frame, without masks
   * @param {Pick<VideoInfo, "frame_count">} info
   * @param {number} stride
   * @param {number} [lowScore]  a frame with a lower score is suspect
   */
  constructor(masklet, info, stride, lowScore = LOW_SCORE) {
    const count = Math.ceil(info.frame_count / stride);
    this.frames = masklet ? masklet.frame_idx : Array.from({ length: count }, (_, i) => i * stride);
    this.masklet = masklet;
    this.lowScore = lowScore;
    this.scores = masklet?.score ?? null;
    this.present = this.frames.map((_, i) => (masklet ? masklet.area_px[i] > 0 : false));
    this.suspects = this.suspectsBelow(lowScore);
  }

  /**
   * The suspect stretches for a threshold.
   * @param {number} lowScore
   */
  suspectsBelow(lowScore) {
    return this.masklet ? suspects(this, this.masklet, lowScore) : [];
  }

  get length() {
    return this.frames.length;
  }

  get presentCount() {
    return this.present.filter(Boolean).length;
  }

  /** IoU of each mask with the mask before, (T,); 1 where there is nothing to compare. */
  steadiness() {
    const rles = this.masklet?.rle;
    this.#steadiness ??= this.frames.map((_, i) => (i && rles ? likeness(rles[i - 1], rles[i]) : 1));
    return this.#steadiness;
  }

  /** The scores of the frames that show the object: their mean and the lowest; null if there are none. */
  scored() {
    const seen = (this.scores ?? []).filter((_, i) => this.present[i]);
    if (seen.length === 0) return null;
    return { mean: seen.reduce((a, b) => a + b, 0) / seen.length, lowest: Math.min(...seen) };
  }

  /**
   * The suspect stretch that this position lies in, or null.
   * @param {number} position
   */
  suspect(position) {
    return this.suspects.find((s) => s.position <= position && position <= s.last) ?? null;
  }
}

/**
 * Stretches worth a look, in order.
 * @param {Timeline} timeline
 * @param {Masklet} masklet
 * @param {number} lowScore
 */
function suspects(timeline, masklet, lowScore) {
  const { present, length } = timeline;
  const steady = timeline.steadiness();
  const known = steady.filter((_, i) => i > 0 && present[i] && present[i - 1]).sort((a, b) => a - b);
  const usual = known[known.length >> 1] ?? 1;
  /** @type {Suspect[]} */
  const found = [];
  for (let i = 0; i < length; i++) {
    const why = suspicion(i, masklet, timeline, lowScore, steady[i] < UNLIKE * usual);
    if (why === null) continue;
    const before = found[found.length - 1];
    if (before && before.last === i - 1 && before.why === why) before.last = i;
    else found.push({ position: i, last: i, why });
  }
  return found;
}

/**
 * @param {number} i  position
 * @param {Masklet} masklet
 * @param {Timeline} timeline
 * @param {number} lowScore
 * @param {boolean} unlike  this mask has little in common with the mask before
 * @returns {Why | null}
 */
function suspicion(i, masklet, { present }, lowScore, unlike) {
  if (present[i] && masklet.score[i] < lowScore) return "low score";
  if (i === 0) return null;
  if (present[i] !== present[i - 1]) return present[i] ? "object returns" : "object leaves";
  if (!present[i]) return null;
  const ratio = masklet.area_px[i] / masklet.area_px[i - 1];
  if (ratio > JUMP || ratio < 1 / JUMP) return "area jumps";
  return unlike ? "mask jumps" : null;
}

const LIKENESSES = 5000; // pairs whose IoU is cached
/** @type {Map<string, number>} */
const likenesses = new Map();

/**
 * The IoU of two masks, cached: a correction changes a few masks of many, so most pairs were compared before.
 * @param {string} one
 * @param {string} other
 */
function likeness(one, other) {
  const key = `${one} ${other}`;
  const known = likenesses.get(key);
  if (known !== undefined) return known;
  if (likenesses.size >= LIKENESSES) likenesses.clear();
  const found = iou(one, other);
  likenesses.set(key, found);
  return found;
}
