// The frames of one video, fetched by index around the position that is wanted, and kept within limits of memory.
// A frame is asked for by its number, so neither a clock nor a decoder decides which frame comes.

import { frame as fetchFrame, Unreachable } from "./api.js";

const PARALLEL = 5; // requests at once; browsers allow six for a host
const DECODERS = 2; // frames decoded ahead at once: more would delay the frame that is wanted
const BLOB_BYTES = 96e6; // of compressed frames that are kept
const BITMAP_BYTES = 256e6; // of decoded frames that are kept
const AHEAD = 10; // frames decoded before they are needed
const BETWEEN = 12; // frames fetched from the wanted one on, of those between the annotated ones

export class Frames {
  /** @type {Map<number, Blob>} */ #blobs = new Map(); // position → compressed frame
  /** @type {Map<number, ImageBitmap>} */ #bitmaps = new Map(); // position → decoded frame, least recently used first
  /** @type {Map<number, Promise<void>>} */ #loading = new Map();
  /** @type {Map<number, ImageBitmap | null>} */ #thumbs = new Map(); // null: it is being made
  #aborter = new AbortController();
  #blobBytes = 0;
  #decoding = 0;
  #wanted = 0;
  /** @type {Frames | null} */ #every = null;

  /** A decoded frame is here. */ onready = () => {};
  /** A thumbnail, or the data for one, is here. */ onthumb = () => {};
  /** A frame did not come; null: one has come. @type {(error: unknown) => void} */ ontrouble = () => {};

  /**
   * @param {string} videoId
   * @param {number[]} frameIdx  position → frame_idx
   * @param {typeof fetchFrame} [fetch]  gets the JPEG of a frame; by default, from the queue
   */
  constructor(videoId, frameIdx, fetch = fetchFrame) {
    this.videoId = videoId;
    this.frameIdx = frameIdx;
    this.fetch = fetch;
    this.limit = frameIdx.length; // positions from the wanted one on that are fetched
  }

  /** @param {number} position  fetch this one first, then what follows it */
  want(position) {
    this.#wanted = position;
    this.#fill();
  }

  /**
   * All frames of the video, where a position is a frame_idx. They are fetched when they are wanted, and go with these.
   * @param {number} count
   */
  every(count) {
    if (this.#every) return this.#every;
    this.#every = new Frames(this.videoId, Array.from({ length: count }, (_, i) => i), this.fetch);
    this.#every.limit = Math.min(BETWEEN, count);
    this.#every.onready = () => this.onready();
    this.#every.ontrouble = (error) => this.ontrouble(error);
    return this.#every;
  }

  /**
   * The decoded frame, or null until it is here.
   * @param {number} position
   */
  ready(position) {
    const bitmap = this.#bitmaps.get(position);
    if (!bitmap) return null;
    this.#bitmaps.delete(position);
    this.#bitmaps.set(position, bitmap);
    return bitmap;
  }

  // Starts what is missing, nearest first: the wanted position, what follows, and around the end what comes before.
  #fill() {
    for (let d = 0; d < this.limit && (d === 0 || this.#loading.size < PARALLEL); d++) {
      const position = (this.#wanted + d) % this.frameIdx.length;
      if (this.#loading.has(position) || this.#bitmaps.has(position)) continue;
      const here = this.#blobs.has(position);
      if (d > AHEAD && (here || this.#blobBytes > BLOB_BYTES)) continue;
      if (d > 0 && here && this.#decoding >= DECODERS) continue;
      this.#loading.set(position, this.#load(position, d <= AHEAD));
      if (d === 0 && here) return; // it needs only decoding, and nothing else should take time from that
    }
  }

  /**
   * @param {number} position
   * @param {boolean} decode
   */
  async #load(position, decode) {
    const { signal } = this.#aborter;
    try {
      let blob = this.#blobs.get(position);
      if (!blob) {
        blob = await this.fetch(this.videoId, this.frameIdx[position], signal);
        this.#blobs.set(position, blob);
        this.#blobBytes += blob.size;
        this.#trim();
        this.onthumb();
      }
      if (decode && this.limit > 0) {
        this.#decoding++;
        const bitmap = await createImageBitmap(blob).finally(() => this.#decoding--);
        if (signal.aborted || this.limit === 0) return bitmap.close();
        this.#bitmaps.set(position, bitmap);
        this.#trim();
        this.onready();
      }
      this.ontrouble(null);
    } catch (error) {
      if (error instanceof Error && error.name === "AbortError") return;
      this.ontrouble(error);
      await new Promise((done) => setTimeout(done, error instanceof Unreachable ? 1500 : 8000));
    } finally {
      this.#loading.delete(position);
      if (!signal.aborted) this.#fill();
    }
  }

  /**
   * A small picture of a frame, or null until the frame's data is here.
   * @param {number} position
   * @param {number} height  px
   */
  thumb(position, height) {
    const known = this.#thumbs.get(position);
    const blob = this.#blobs.get(position);
    if (known !== undefined || !blob) return known ?? null;
    this.#thumbs.set(position, null);
    createImageBitmap(blob, { resizeHeight: height, resizeQuality: "medium" })
      .then((bitmap) => {
        if (this.#aborter.signal.aborted) return bitmap.close();
        this.#thumbs.set(position, bitmap);
        this.onthumb();
      })
      .catch(() => {}); // a frame without a thumbnail
    return null;
  }

  /** @param {number} position */
  #isNear(position) {
    return (position - this.#wanted + this.frameIdx.length) % this.frameIdx.length <= AHEAD;
  }

  #trim() {
    let bytes = 0;
    for (const bitmap of this.#bitmaps.values()) bytes += bitmap.width * bitmap.height * 4;
    for (const [position, bitmap] of this.#bitmaps) {
      if (bytes <= BITMAP_BYTES) break;
      if (this.#isNear(position)) continue;
      bytes -= bitmap.width * bitmap.height * 4;
      bitmap.close();
      this.#bitmaps.delete(position);
    }
    for (const [position, blob] of this.#blobs) {
      if (this.#blobBytes <= BLOB_BYTES) break;
      if (this.#isNear(position)) continue;
      this.#blobBytes -= blob.size;
      this.#blobs.delete(position);
    }
  }

  /** Not on screen for a while: keep what was fetched, drop what is decoded, also what is being decoded; fetch nothing more. */
  rest() {
    this.limit = 0;
    this.#every?.close();
    this.#every = null;
    for (const bitmap of this.#bitmaps.values()) bitmap.close();
    this.#bitmaps.clear();
  }

  close() {
    this.#every?.close();
    this.#aborter.abort();
    for (const bitmap of this.#bitmaps.values()) bitmap.close();
    for (const bitmap of this.#thumbs.values()) bitmap?.close();
    this.#bitmaps.clear();
    this.#thumbs.clear();
    this.#blobs.clear();
  }
}
