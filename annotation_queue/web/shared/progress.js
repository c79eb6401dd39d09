// How far a propagation has come, and how long it will take.

import { many } from "./words.js";

export class Progress {
  /** @type {Set<number>} */ frames = new Set(); // frame_idx of the masks that have come
  #most;
  #made;
  #firstAt = 0; // ms, when the first mask came that was not made before
  #fresh = 0; // masks that were not made before
  #lastAt = 0;

  /**
   * @param {number} most  the frames that it may change
   * @param {number} made  of them, those that were made before, such as before a lost connection
   */
  constructor(most, made) {
    this.#most = most;
    this.#made = made;
  }

  /**
   * A mask has come.
   * @param {number} frame  frame_idx
   * @param {number} now  ms
   */
  add(frame, now) {
    this.frames.add(frame);
    if (this.frames.size <= this.#made) return;
    if (this.#fresh++ === 0) this.#firstAt = now;
    this.#lastAt = now;
  }

  /** Seconds until the last mask at the pace of those that have come; null before there is a pace. */
  get left() {
    const took = (this.#lastAt - this.#firstAt) / 1000;
    if (this.#fresh < 2 || took <= 0) return null;
    return ((this.#most - this.frames.size) * took) / (this.#fresh - 1);
  }

  /** "65 of 371 frames, about 2 min left" */
  get text() {
    const count = `${this.frames.size} of ${many(this.#most, "frame")}`;
    return this.left === null ? count : `${count}, ${timeLeft(this.left)}`;
  }
}

/**
 * @param {number} seconds
 */
function timeLeft(seconds) {
  if (seconds < 5) return "a few seconds left";
  if (seconds < 90) return `about ${5 * Math.ceil(seconds / 5)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}
