// The masks of a video of a release, fetched in pieces by frames: an hour of video has too many to be sent at once.

/** @import { ReleaseMasks } from "../shared/release_types.js" */

export const PIECE = 240; // frames of the stored video in a piece: 10 s
const KEPT = 12; // pieces
const AGAIN_MS = 4000; // after a piece did not come

export class Masks {
  /** @type {Map<number, Map<number, string>[] | null>} */
  #pieces = new Map(); // number → of each masklet: frame_idx → counts; null: on its way
  #closed = false;

  /** A piece is here, or did not come. */ onready = () => {};

  /**
   * @param {number} frameCount  of the video
   * @param {(first: number, count: number) => Promise<ReleaseMasks>} fetch
   */
  constructor(frameCount, fetch) {
    this.last = Math.floor((frameCount - 1) / PIECE);
    this.fetch = fetch;
  }

  /** Fetch the masks of this frame and of those that are played next. @param {number} frame */
  want(frame) {
    const piece = Math.floor(frame / PIECE);
    void this.#load(piece);
    void this.#load(piece === this.last ? 0 : piece + 1);
  }

  /**
   * The masks of a frame, one for each masklet; null until they are here.
   * @param {number} frame
   */
  at(frame) {
    return this.#pieces.get(Math.floor(frame / PIECE))?.map((of) => of.get(frame)) ?? null;
  }

  close() {
    this.#closed = true;
    this.#pieces.clear();
  }

  /** @param {number} piece */
  async #load(piece) {
    const isKnown = this.#pieces.has(piece);
    this.#keep(piece, this.#pieces.get(piece) ?? null);
    if (isKnown) return;
    try {
      const { masklets } = await this.fetch(piece * PIECE, PIECE);
      if (this.#closed) return;
      this.#pieces.set(piece, masklets.map(({ frame_idx, rle }) => new Map(frame_idx.map((frame, t) => [frame, rle[t]]))));
      this.onready();
    } catch {
      await new Promise((done) => setTimeout(done, AGAIN_MS));
      this.#pieces.delete(piece);
      if (!this.#closed) this.onready(); // what is on screen is wanted again
    }
  }

  /**
   * As the piece that was used last.
   * @param {number} piece
   * @param {Map<number, string>[] | null} content
   */
  #keep(piece, content) {
    this.#pieces.delete(piece);
    this.#pieces.set(piece, content);
    for (const oldest of [...this.#pieces.keys()].slice(0, -KEPT)) this.#pieces.delete(oldest);
  }
}
