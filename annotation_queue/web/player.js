// Shows one frame together with its own masks: both are drawn in one call, from the same position.

/** @import { Colour, Point } from "./types.js" */
/** @import { HeldTicket } from "./held.js" */
import { frame as fetchFrame } from "./api.js";
import { pen } from "./dom.js";
import { Overlay } from "./overlay.js";
import { Mask, measured, runs, spans } from "./rle.js";

// The colours of the ticket's own masks. The first is violet; a person takes another one where the object is violet.
/** @type {{fill: Colour, line: Colour}[]} */
const OWN = [
  { fill: [165, 123, 255], line: [214, 196, 255] },
  { fill: [255, 226, 40], line: [255, 244, 160] },
  { fill: [0, 214, 255], line: [180, 242, 255] },
  { fill: [255, 96, 56], line: [255, 196, 176] },
];
/** @type {Colour} */
const BEFORE = [255, 190, 70];

// The colours of other objects: those of Okabe and Ito, which colour-blind eyes can tell apart.
/** @type {Colour[]} */
export const OTHERS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0]];

export const MODES = ["fill", "outline", "cut-out", "before"];
const MOST_ZOOM = 16;
const WHOLE = { scale: 1, x: 0, y: 0 };

/** Owns the canvas of the video. */
export class Player {
  /** @type {HeldTicket | null} */ held = null;
  /** @type {Overlay | null} */ #overlay = null;
  /** @type {Uint8Array | null} */ #preview = null; // a mask that is being drawn
  #due = 0; // when the next frame of the playing video is shown
  #view = WHOLE; // zoom, and the shift of the picture in px of the screen

  playing = false;
  speed = 2;
  rate = 6; // annotated frames a second, at speed 1
  mode = "fill";
  colour = 0; // which of OWN
  colours = { ...OWN[0], before: BEFORE };
  brightness = 1;
  showOthers = false;
  hidden = false; // the masks
  panning = false; // dragging moves the picture
  position = 0; // the wanted position
  shown = -1; // the position on screen

  /** A frame is on screen. @type {(position: number) => void} */ onframe = () => {};
  /** The wanted frame is waited for, or no longer. @type {(waiting: boolean) => void} */ onbuffer = () => {};
  /** The zoom has changed. */ onview = () => {};
  /** It plays or pauses, or the speed or the mode has changed. */ onchange = () => {};

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = pen(canvas);
  }

  /** @param {HeldTicket | null} held  null clears the screen */
  show(held) {
    this.held = held;
    this.position = 0;
    this.shown = -1;
    this.#preview = null;
    this.wholeFrame();
    if (held === null) {
      this.play(false);
      this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      return;
    }
    this.canvas.width = held.info.width;
    this.canvas.height = held.info.height;
    held.frames.onready = (position) => {
      if (position === this.position && this.shown !== position) this.#draw();
    };
    this.seek(0);
  }

  /** @param {number} n  which colour the masks of the ticket have */
  choose(n) {
    this.colour = Number.isInteger(n) ? n % OWN.length : 0;
    this.colours = { ...OWN[this.colour], before: BEFORE };
    this.refresh();
  }

  /** Draw the frame on screen again, since its masks have changed. */
  refresh() {
    if (this.held && this.shown === this.position) this.#draw();
  }

  /** @param {Uint8Array | null} bits  a mask that is being drawn, to be shown instead of the frame's own */
  preview(bits) {
    this.#preview = bits;
    this.refresh();
  }

  // --- zoom: the canvas is moved and scaled as a whole, so frame and mask stay together ---

  /** @param {{scale: number, x: number, y: number}} view */
  #look(view) {
    const scale = Math.max(1, Math.min(MOST_ZOOM, view.scale));
    const { clientWidth: w, clientHeight: h } = this.#stage;
    const most = [(w * (scale - 1)) / 2, (h * (scale - 1)) / 2];
    const bounded = [view.x, view.y].map((v, i) => Math.max(-most[i], Math.min(most[i], v)));
    this.#view = { scale, x: bounded[0], y: bounded[1] };
    this.canvas.style.transform = scale === 1 ? "" : `translate(${bounded[0]}px, ${bounded[1]}px) scale(${scale})`;
    this.canvas.style.imageRendering = scale > 3 ? "pixelated" : "";
    this.onview();
  }

  get #stage() {
    return this.canvas.parentElement ?? this.canvas;
  }

  wholeFrame() {
    this.#look(WHOLE);
  }

  /**
   * Move the picture, px of the screen.
   * @param {number} dx
   * @param {number} dy
   */
  pan(dx, dy) {
    this.#look({ ...this.#view, x: this.#view.x + dx, y: this.#view.y + dy });
  }

  /**
   * Zoom by a factor. The point under the pointer stays where it is.
   * @param {number} by
   * @param {number | null} clientX
   * @param {number | null} clientY
   */
  zoom(by, clientX = null, clientY = null) {
    const box = this.#stage.getBoundingClientRect();
    const [cx, cy] = [box.left + box.width / 2, box.top + box.height / 2];
    const [px, py] = [(clientX ?? cx) - cx, (clientY ?? cy) - cy];
    const scale = Math.max(1, Math.min(MOST_ZOOM, this.#view.scale * by));
    const ratio = scale / this.#view.scale;
    this.#look({ scale, x: px - (px - this.#view.x) * ratio, y: py - (py - this.#view.y) * ratio });
  }

  // Where the video is on the screen, px: the picture keeps its aspect ratio inside the canvas' box.
  #picture() {
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height) || 1;
    const left = box.left + (box.width - this.canvas.width * scale) / 2;
    return { left, top: box.top + (box.height - this.canvas.height * scale) / 2, scale };
  }

  /** Pixels of the screen for each pixel of the video. */
  pixelsPerPixel() {
    return this.#picture().scale;
  }

  /**
   * A point of the viewport in pixels of the video.
   * @param {number} clientX
   * @param {number} clientY
   * @returns {Point}
   */
  toVideo(clientX, clientY) {
    const { left, top, scale } = this.#picture();
    return [(clientX - left) / scale, (clientY - top) / scale];
  }

  /**
   * A point in pixels of the video → pixels of the stage.
   * @param {Point} point
   * @returns {Point}
   */
  toStage([x, y]) {
    const { left, top, scale } = this.#picture();
    const box = this.#stage.getBoundingClientRect();
    return [left + x * scale - box.left, top + y * scale - box.top];
  }

  // --- time ---

  /** @param {number} position */
  seek(position) {
    if (!this.held) return;
    this.position = Math.max(0, Math.min(this.held.timeline.length - 1, position));
    this.held.frames.want(this.position);
    this.#draw();
  }

  play(on = !this.playing) {
    if (on === this.playing || (on && !this.held)) return;
    this.playing = on;
    this.onchange();
    this.#due = performance.now() + this.#interval;
    if (on) requestAnimationFrame((now) => this.#tick(now));
  }

  nextSpeed() {
    this.speed = this.speed === 4 ? 1 : 2 * this.speed;
    this.onchange();
  }

  get #interval() {
    return 1000 / (this.rate * this.speed);
  }

  /** @param {number} now */
  #tick(now) {
    if (!this.playing || !this.held) return;
    if (now >= this.#due && this.shown === this.position) {
      const next = (this.position + 1) % this.held.timeline.length;
      this.held.frames.want(next);
      if (this.held.frames.ready(next)) {
        this.seek(next);
        this.#due = Math.max(this.#due + this.#interval, now);
      }
    }
    requestAnimationFrame((later) => this.#tick(later));
  }

  // --- drawing ---

  /** @param {boolean} hidden */
  setHidden(hidden) {
    if (hidden === this.hidden) return;
    this.hidden = hidden;
    this.#draw();
  }

  /** @param {string} mode  one of MODES */
  setMode(mode) {
    this.mode = mode;
    this.#draw();
    this.onchange();
  }

  // Draws the frame and the masks of the wanted position, or nothing if that frame is not here yet.
  #draw() {
    if (!this.held) return;
    const bitmap = this.held.frames.ready(this.position);
    this.onbuffer(bitmap === null);
    if (bitmap === null) return;
    const { canvas, context } = this;
    context.filter = this.brightness === 1 ? "none" : `brightness(${this.brightness})`;
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    context.filter = "none";
    if (!this.hidden && (this.held.masklet || this.showOthers)) this.#paint(this.held, this.position);
    this.shown = this.position;
    canvas.dataset.frame = String(this.held.timeline.frames[this.position]);
    this.onframe(this.position);
    canvas.dispatchEvent(new CustomEvent("painted", { detail: this.position })); // benchmarks wait for it
  }

  /**
   * Paint the masks of one position in the chosen mode: the insides, then the edges, the ticket's own masks on top.
   * @param {HeldTicket} held
   * @param {number} position
   */
  #paint(held, position) {
    const { info, masklet, before } = held;
    const { height, width } = info;
    const at = (/** @type {string} */ text) => spans(runs(text), height, width);
    let overlay = this.#overlay;
    if (overlay?.height !== height || overlay.width !== width) overlay = new Overlay(height, width);
    this.#overlay = overlay;
    const { mode, colours } = this;
    overlay.clear();
    const others = this.showOthers ? othersAt(held, position).map((other) => ({ ...other, spans: at(other.rle) })) : [];
    const drawn = this.#preview && spans(measured(this.#preview, height, width), height, width);
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

  /**
   * Draw the object by itself, from the frame in which it is largest.
   * @param {HTMLCanvasElement} target
   */
  async portrait(target) {
    const { held } = this;
    const context = pen(target);
    context.clearRect(0, 0, target.width, target.height);
    if (!held?.masklet) return;
    const areas = held.masklet.area_px;
    const best = areas.indexOf(Math.max(...areas));
    const mask = new Mask(held.masklet.rle[best], held.masklet.height, held.masklet.width);
    if (mask.box === null) return;
    const blob = await fetchFrame(held.ticket.video_id, held.timeline.frames[best]).catch(() => null);
    if (blob === null) return;
    const bitmap = await createImageBitmap(blob);
    if (this.held !== held) return bitmap.close();
    const [x0, y0, x1, y1] = mask.box;
    const side = Math.max(x1 - x0, y1 - y0) * 1.3;
    const sx = (x0 + x1 - side) / 2;
    const sy = (y0 + y1 - side) / 2;
    const scale = bitmap.width / held.masklet.width;
    context.drawImage(
      bitmap, sx * scale, sy * scale, side * scale, side * scale, 0, 0, target.width, target.height,
    );
    bitmap.close();
  }
}

/**
 * The masks of the other objects of the video on one frame, each in its own colour.
 * @param {HeldTicket} held
 * @param {number} position
 */
function othersAt(held, position) {
  const frame = held.timeline.frames[position];
  const all = (held.others ?? []).map(({ frame_idx, rle, settled }, n) => {
    return { rle: rle[frame_idx.indexOf(frame)], settled, colour: OTHERS[n % OTHERS.length] };
  });
  return all.filter((other) => other.rle !== undefined);
}
