// How much of a masklet a person has seen: the frames that were on screen together with their masks. A verdict is taken
// only after enough of them. Kept in memory for each ticket, so that an answer that is taken back needs no second look.

/** @import { Verdict, Watch } from "./types.js" */

const MOST = 50; // tickets whose frames are kept

/** @type {Map<string, Set<number>>} */
const kept = new Map(); // person and ticket → positions

export class Watching {
  #seen;
  #asked;

  /**
   * @param {string} key  of the person and the ticket
   * @param {boolean[]} present  by position: whether the masklet shows the object
   */
  constructor(key, present) {
    const shows = present.flatMap((here, position) => (here ? [position] : []));
    this.#asked = shows.length ? shows : present.map((_, position) => position); // an empty masklet: every frame counts
    this.#seen = kept.get(key) ?? new Set();
    kept.delete(key);
    kept.set(key, this.#seen);
    for (const oldest of [...kept.keys()].slice(0, -MOST)) kept.delete(oldest);
  }

  /** @param {number} position  was on screen with its mask */
  see(position) {
    this.#seen.add(position);
  }

  /** Frames with the object. */
  get frames() {
    return this.#asked.length;
  }

  /** Of them, those that were on screen. */
  get seen() {
    return this.#asked.filter((position) => this.#seen.has(position)).length;
  }

  /** The share of them that was on screen, 0 to 1. */
  get share() {
    return this.frames ? Math.round((1000 * this.seen) / this.frames) / 1000 : 1;
  }

  /**
   * How many more frames must be on screen before this verdict is taken.
   * @param {Verdict} verdict
   * @param {Watch} watch
   */
  missing(verdict, { watch_share, watch_fault_share, watch_least }) {
    const asked = Math.ceil((verdict === "accept" ? watch_share : watch_fault_share) * this.frames - 1e-9);
    return Math.max(0, Math.min(this.frames, Math.max(asked, watch_least)) - this.seen);
  }
}
