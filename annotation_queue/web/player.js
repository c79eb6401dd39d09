// Shows one frame with its own mask, never another's: both are drawn in one call from the same position.
// Frames are fetched by index, so no clock and no decoder decides which one is on screen.

import { frame as fetchFrame, Unreachable } from "./api.js";
import { Mask } from "./rle.js";

const PARALLEL = 5; // requests at once; browsers allow six a host
const BLOB_BYTES = 96e6; // compressed frames kept
const BITMAP_BYTES = 256e6; // decoded frames kept
const AHEAD = 10; // frames decoded before they are needed

export const MODES = ["fill", "outline", "cut-out"];

export class Frames {
  // The frames of one ticket: fetched around the position that is wanted, kept within the byte limits.
  constructor(videoId, frameIdx) {
    this.videoId = videoId;
    this.frameIdx = frameIdx; // position → frame_idx
    this.blobs = new Map();
    this.blobBytes = 0;
    this.bitmaps = new Map(); // in order of use
    this.loading = new Map();
    this.wanted = 0;
    this.onready = () => {};
    this.ontrouble = () => {};
    this.aborter = new AbortController();
    this.limit = frameIdx.length;
  }

  want(position) {
    this.wanted = position;
    this.fill();
  }

  ready(position) {
    const bitmap = this.bitmaps.get(position);
    if (!bitmap) return null;
    this.bitmaps.delete(position);
    this.bitmaps.set(position, bitmap);
    return bitmap;
  }

  fill() {
    // Start what is missing, nearest first: the position itself, what comes next, what came before.
    for (let d = 0; d < this.limit && this.loading.size < PARALLEL; d++) {
      const position = (this.wanted + d) % this.frameIdx.length;
      if (this.loading.has(position)) continue;
      if (this.bitmaps.has(position)) continue;
      if (d > AHEAD && (this.blobs.has(position) || this.blobBytes > BLOB_BYTES)) continue;
      this.loading.set(position, this.load(position, d <= AHEAD));
    }
  }

  async load(position, decode) {
    try {
      let blob = this.blobs.get(position);
      if (!blob) {
        blob = await fetchFrame(this.videoId, this.frameIdx[position], this.aborter.signal);
        this.blobs.set(position, blob);
        this.blobBytes += blob.size;
        this.trim();
      }
      if (decode) {
        const bitmap = await createImageBitmap(blob);
        if (this.aborter.signal.aborted) return bitmap.close();
        this.bitmaps.set(position, bitmap);
        this.trim();
        this.onready(position);
      }
      this.ontrouble(null);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.ontrouble(error);
      await new Promise((done) => setTimeout(done, error instanceof Unreachable ? 1500 : 8000));
    } finally {
      this.loading.delete(position);
      if (!this.aborter.signal.aborted) this.fill();
    }
  }

  distance(position) {
    return (position - this.wanted + this.frameIdx.length) % this.frameIdx.length;
  }

  trim() {
    let bytes = 0;
    for (const bitmap of this.bitmaps.values()) bytes += bitmap.width * bitmap.height * 4;
    for (const [position, bitmap] of this.bitmaps) {
      if (bytes <= BITMAP_BYTES) break;
      if (this.distance(position) <= AHEAD) continue;
      bytes -= bitmap.width * bitmap.height * 4;
      bitmap.close();
      this.bitmaps.delete(position);
    }
    for (const [position, blob] of this.blobs) {
      if (this.blobBytes <= BLOB_BYTES) break;
      if (this.distance(position) <= AHEAD) continue;
      this.blobBytes -= blob.size;
      this.blobs.delete(position);
    }
  }

  close() {
    this.aborter.abort();
    for (const bitmap of this.bitmaps.values()) bitmap.close();
    this.bitmaps.clear();
    this.blobs.clear();
  }
}

export class Player {
  // Owns the canvas. `onframe(position)` is called after a frame is on screen.
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: false });
    this.overlay = document.createElement("canvas");
    this.mode = "fill";
    this.hidden = false;
    this.playing = false;
    this.speed = 2;
    this.rate = 6; // annotated frames a second, at speed 1
    this.onframe = () => {};
    this.onbuffer = () => {};
    this.work = null;
    this.position = 0; // what is wanted
    this.shown = -1; // what is on screen
    this.colours = { fill: [165, 123, 255], line: [214, 196, 255] };
  }

  show(work) {
    // Take up a ticket: {info, masklet, timeline, frames}; null clears the screen.
    this.work = work;
    this.position = 0;
    this.shown = -1;
    this.mask = null;
    if (work === null) {
      this.playing = false;
      this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      return;
    }
    this.canvas.width = this.overlay.width = work.info.width;
    this.canvas.height = this.overlay.height = work.info.height;
    this.image = null;
    work.frames.onready = (position) => {
      if (position === this.position && this.shown !== position) this.draw();
    };
    this.seek(0);
  }

  seek(position) {
    if (!this.work) return;
    this.position = Math.max(0, Math.min(this.work.timeline.length - 1, position));
    this.work.frames.want(this.position);
    this.draw();
  }

  play(on = !this.playing) {
    if (!this.work || on === this.playing) return;
    this.playing = on;
    this.due = performance.now() + this.interval;
    if (on) requestAnimationFrame((now) => this.tick(now));
  }

  get interval() {
    return 1000 / (this.rate * this.speed);
  }

  tick(now) {
    if (!this.playing || !this.work) return;
    if (now >= this.due && this.shown === this.position) {
      const next = (this.position + 1) % this.work.timeline.length;
      this.work.frames.want(next);
      if (this.work.frames.ready(next)) {
        this.seek(next);
        this.due = Math.max(this.due + this.interval, now);
      }
    }
    requestAnimationFrame((later) => this.tick(later));
  }

  setHidden(hidden) {
    if (hidden === this.hidden) return;
    this.hidden = hidden;
    this.draw();
  }

  setMode(mode) {
    this.mode = mode;
    this.draw();
  }

  draw() {
    // Frame and mask of `this.position`, or nothing new if that frame is not here yet.
    if (!this.work) return;
    const bitmap = this.work.frames.ready(this.position);
    this.onbuffer(bitmap === null);
    if (bitmap === null) return;
    const { canvas, context } = this;
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    if (this.work.masklet && !this.hidden) {
      this.paint(this.position);
      context.drawImage(this.overlay, 0, 0);
    }
    this.shown = this.position;
    canvas.dataset.frame = this.work.timeline.frames[this.position];
    this.onframe(this.position);
  }

  paint(position) {
    // The overlay canvas for one position, in the mode that is chosen.
    const { masklet } = this.work;
    const { height, width } = masklet;
    const context = this.overlay.getContext("2d");
    if (this.overlay.width !== width || this.overlay.height !== height) {
      this.overlay.width = width;
      this.overlay.height = height;
    }
    const mask = new Mask(masklet.rle[position], height, width);
    context.clearRect(0, 0, width, height);
    const outside = this.mode === "cut-out" ? [8, 8, 12, 210] : [0, 0, 0, 0];
    if (outside[3]) {
      context.fillStyle = `rgb(${outside.slice(0, 3).join(" ")} / ${outside[3] / 255})`;
      context.fillRect(0, 0, width, height);
    }
    if (mask.box === null) return;
    const [x0, y0, x1, y1] = mask.box;
    const image = context.createImageData(x1 - x0, y1 - y0);
    const pixels = image.data;
    const scale = this.canvas.clientWidth ? width / this.canvas.clientWidth : 1;
    const thickness = Math.max(1, Math.round((this.mode === "outline" ? 3 : 2) * scale));
    const fill = this.mode === "fill" ? [...this.colours.fill, 108] : [0, 0, 0, 0];
    const line = this.mode === "cut-out" ? [0, 0, 0, 0] : [...this.colours.line, 255];
    for (let y = y0, at = 0; y < y1; y++) {
      for (let x = x0; x < x1; x++, at += 4) {
        let colour = outside;
        if (mask.bits[y * width + x]) colour = line[3] && mask.isEdge(x, y, thickness) ? line : fill;
        if (!colour[3]) continue;
        pixels[at] = colour[0];
        pixels[at + 1] = colour[1];
        pixels[at + 2] = colour[2];
        pixels[at + 3] = colour[3];
      }
    }
    context.putImageData(image, x0, y0);
  }

  async portrait(target) {
    // The object by itself, from the frame where it is largest.
    const { work } = this;
    const context = target.getContext("2d");
    context.clearRect(0, 0, target.width, target.height);
    if (!work?.masklet) return;
    const { areas, length } = work.timeline;
    let best = 0;
    for (let i = 1; i < length; i++) if (areas[i] > areas[best]) best = i;
    const mask = new Mask(work.masklet.rle[best], work.masklet.height, work.masklet.width);
    if (mask.box === null) return;
    const blob = await fetchFrame(work.ticket.video_id, work.timeline.frames[best]).catch(() => null);
    if (blob === null) return;
    const bitmap = await createImageBitmap(blob);
    if (this.work !== work) return bitmap.close();
    const [x0, y0, x1, y1] = mask.box;
    const side = Math.max(x1 - x0, y1 - y0) * 1.3;
    const sx = (x0 + x1 - side) / 2;
    const sy = (y0 + y1 - side) / 2;
    const scale = bitmap.width / work.masklet.width;
    context.drawImage(
      bitmap, sx * scale, sy * scale, side * scale, side * scale, 0, 0, target.width, target.height,
    );
    bitmap.close();
  }
}
