// Shows one frame with its own mask, never another's: both are drawn in one call from the same position.
// Frames are fetched by index, so no clock and no decoder decides which one is on screen.

import { frame as fetchFrame, Unreachable } from "./api.js";
import { Overlay } from "./overlay.js";
import { Mask, measured, runs, spans } from "./rle.js";

const PARALLEL = 5; // requests at once; browsers allow six a host
const DECODERS = 2; // frames decoded at once: what is wanted next should not wait for many
const BLOB_BYTES = 96e6; // compressed frames kept
const BITMAP_BYTES = 256e6; // decoded frames kept
const AHEAD = 10; // frames decoded before they are needed

// Okabe and Ito's colours: they differ for colour-blind eyes, too. The ticket's own violet is none of them.
// Of the masks at hand, violet at first: another one where the object has nearly the same.
const OWN = [
  { fill: [165, 123, 255], line: [214, 196, 255] },
  { fill: [255, 226, 40], line: [255, 244, 160] },
  { fill: [0, 214, 255], line: [180, 242, 255] },
  { fill: [255, 96, 56], line: [255, 196, 176] },
];
export const OTHERS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0]];

export const MODES = ["fill", "outline", "cut-out", "before"];

export class Frames {
  // The frames of one ticket: fetched around the position that is wanted, kept within the byte limits.
  constructor(videoId, frameIdx) {
    this.videoId = videoId;
    this.frameIdx = frameIdx; // position → frame_idx
    this.blobs = new Map();
    this.blobBytes = 0;
    this.bitmaps = new Map(); // in order of use
    this.loading = new Map();
    this.decoding = 0;
    this.thumbs = new Map(); // position → a small picture, or null while it is made
    this.wanted = 0;
    this.onready = () => {};
    this.onthumb = () => {};
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
    for (let d = 0; d < this.limit && (d === 0 || this.loading.size < PARALLEL); d++) {
      const position = (this.wanted + d) % this.frameIdx.length;
      if (this.loading.has(position)) continue;
      if (this.bitmaps.has(position)) continue;
      const here = this.blobs.has(position);
      if (d > AHEAD && (here || this.blobBytes > BLOB_BYTES)) continue;
      if (d > 0 && here && this.decoding >= DECODERS) continue;
      this.loading.set(position, this.load(position, d <= AHEAD));
      if (d === 0 && here) return; // it is only to be decoded: nothing else takes time from that
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
        this.onthumb();
      }
      if (decode) {
        this.decoding++;
        const bitmap = await createImageBitmap(blob).finally(() => this.decoding--);
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

  thumb(position, height) {
    // A small picture of a frame, once its data is here; null until then.
    const known = this.thumbs.get(position);
    const blob = this.blobs.get(position);
    if (known !== undefined || !blob) return known ?? null;
    this.thumbs.set(position, null);
    createImageBitmap(blob, { resizeHeight: height, resizeQuality: "medium" })
      .then((bitmap) => {
        if (this.aborter.signal.aborted) return bitmap.close();
        this.thumbs.set(position, bitmap);
        this.onthumb();
      })
      .catch(() => {});
    return null;
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

  rest() {
    // Not on screen for a while: what was fetched stays, as it came; what was decoded and what is asked for goes.
    this.limit = 0;
    for (const bitmap of this.bitmaps.values()) bitmap.close();
    this.bitmaps.clear();
  }

  close() {
    this.aborter.abort();
    for (const bitmap of this.bitmaps.values()) bitmap.close();
    for (const bitmap of this.thumbs.values()) bitmap?.close();
    this.bitmaps.clear();
    this.thumbs.clear();
    this.blobs.clear();
  }
}

export class Player {
  // Owns the canvas. `onframe(position)` is called after a frame is on screen.
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: false });
    this.overlay = null;
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
    this.choose(0);
    this.brightness = 1;
    this.showOthers = false;
    this.bits = null; // a mask that is being drawn
    this.view = { scale: 1, x: 0, y: 0 }; // zoom, and the shift of the picture, px of the screen
    this.panning = false;
    this.onview = () => {};
  }

  show(work) {
    // Take up a ticket: {info, masklet, timeline, frames}; null clears the screen.
    this.work = work;
    this.position = 0;
    this.shown = -1;
    this.bits = null;
    this.look({ scale: 1, x: 0, y: 0 });
    if (work === null) {
      this.playing = false;
      this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      return;
    }
    this.canvas.width = work.info.width;
    this.canvas.height = work.info.height;
    work.frames.onready = (position) => {
      if (position === this.position && this.shown !== position) this.draw();
    };
    this.seek(0);
  }

  choose(n) {
    // The n-th colour for the masks of the work.
    this.colour = Number.isInteger(n) ? n % OWN.length : 0;
    this.colours = { ...OWN[this.colour], before: [255, 190, 70] };
    this.refresh();
  }

  refresh() {
    // The masks of the work have changed.
    if (this.work && this.shown === this.position) this.draw();
  }

  preview(bits) {
    // Show a mask that is being drawn instead of the frame's own; null ends that.
    this.bits = bits;
    this.refresh();
  }

  // --- zoom: the canvas is moved and scaled as a whole, so frame and mask stay together ---

  look(view) {
    const scale = Math.max(1, Math.min(16, view.scale));
    const { clientWidth: w, clientHeight: h } = this.canvas.parentElement ?? this.canvas;
    const most = [(w * (scale - 1)) / 2, (h * (scale - 1)) / 2];
    const held = [view.x, view.y].map((v, i) => Math.max(-most[i], Math.min(most[i], v)));
    this.view = { scale, x: held[0], y: held[1] };
    this.canvas.style.transform = scale === 1 ? "" : `translate(${held[0]}px, ${held[1]}px) scale(${scale})`;
    this.canvas.style.imageRendering = scale > 3 ? "pixelated" : "";
    this.onview();
  }

  pan(dx, dy) {
    this.look({ ...this.view, x: this.view.x + dx, y: this.view.y + dy });
  }

  zoom(by, clientX = null, clientY = null) {
    // Keep what is under the pointer where it is.
    const box = this.canvas.parentElement.getBoundingClientRect();
    const [cx, cy] = [box.left + box.width / 2, box.top + box.height / 2];
    const [px, py] = [(clientX ?? cx) - cx, (clientY ?? cy) - cy];
    const scale = Math.max(1, Math.min(16, this.view.scale * by));
    const ratio = scale / this.view.scale;
    this.look({ scale, x: px - (px - this.view.x) * ratio, y: py - (py - this.view.y) * ratio });
  }

  picture() {
    // Where the video is on the screen, px: the canvas keeps its shape inside its box.
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height) || 1;
    const left = box.left + (box.width - this.canvas.width * scale) / 2;
    return { left, top: box.top + (box.height - this.canvas.height * scale) / 2, scale };
  }

  pixelsPerPixel() {
    return this.picture().scale;
  }

  toVideo(clientX, clientY) {
    const { left, top, scale } = this.picture();
    return [(clientX - left) / scale, (clientY - top) / scale];
  }

  toStage([x, y]) {
    // Pixels of the video → pixels of the stage.
    const { left, top, scale } = this.picture();
    const box = this.canvas.parentElement.getBoundingClientRect();
    return [left + x * scale - box.left, top + y * scale - box.top];
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
    context.filter = this.brightness === 1 ? "none" : `brightness(${this.brightness})`;
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    context.filter = "none";
    if (!this.hidden && (this.work.masklet || this.showOthers)) this.paint(this.position);
    this.shown = this.position;
    canvas.dataset.frame = this.work.timeline.frames[this.position];
    this.onframe(this.position);
    canvas.dispatchEvent(new CustomEvent("painted", { detail: this.position })); // for those who measure
  }

  paint(position) {
    // The masks of one position, in the mode that is chosen: insides first, then edges, the ticket's own on top.
    const { info, masklet, before } = this.work;
    const { height, width } = info;
    const at = (text) => spans(runs(text), height, width);
    if (this.overlay?.height !== height || this.overlay.width !== width) this.overlay = new Overlay(height, width);
    const { overlay, mode, colours } = this;
    overlay.clear();
    const others = this.showOthers ? this.others(position).map((other) => ({ ...other, spans: at(other.rle) })) : [];
    const drawn = this.bits && spans(measured(this.bits, height, width), height, width);
    const own = masklet && (drawn ?? at(masklet.rle[position]));
    const scale = this.canvas.clientWidth ? width / this.canvas.clientWidth : 1;
    const thickness = Math.max(1, Math.round(2 * scale));
    const thick = mode === "outline" ? Math.max(1, Math.round(3 * scale)) : thickness;
    const cut = own && mode === "cut-out";
    if (cut) {
      overlay.flood([8, 8, 12, 210]);
      overlay.fill(own, [0, 0, 0, 0]);
    } else {
      for (const { spans, colour, settled } of others) overlay.fill(spans, [...colour, settled ? 70 : 35]);
      if (own && mode !== "outline") overlay.fill(own, [...colours.fill, 108]);
    }
    for (const { spans, colour } of others) overlay.line(spans, [...colour, 255], thickness);
    if (own && !cut) overlay.line(own, [...colours.line, 255], thick);
    if (own && mode === "before" && before) {
      overlay.line(at(before.rle[position]), [...colours.before, 255], Math.max(2, thickness));
    }
    overlay.drawOn(this.context);
  }

  others(position) {
    // The other objects of the video in a frame, each in its own colour: stronger where it is settled.
    const frame = this.work.timeline.frames[position];
    const all = (this.work.others ?? []).map(({ frame_idx, rle, settled }, n) => {
      return { rle: rle[frame_idx.indexOf(frame)], settled, colour: OTHERS[n % OTHERS.length] };
    });
    return all.filter((other) => other.rle !== undefined);
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
