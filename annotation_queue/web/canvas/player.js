// Shows one frame together with its own masks: both are drawn in one call, from the same position.

/** @import { Point } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
/** @import { Label, Line } from "./outline.js" */
/** @import { Spans } from "../shared/rle.js" */
import { frame as fetchFrame } from "../shared/api.js";
import { pen } from "../shared/dom.js";
import { isInside, middleOf, Outline } from "./outline.js";
import { Overlay } from "../shared/overlay.js";
import { BEFORE, colourOf, OWN } from "./palette.js";
import { Mask, measured, runs, spans } from "../shared/rle.js";

export const MODES = ["fill", "outline", "cut-out", "before"];
const MOST_ZOOM = 16;
const WHOLE = { scale: 1, x: 0, y: 0 };
const LINE = 1.5; // px of the page, as all lines
const LIT = 3; // of the object that is pointed to
const USUAL_OPACITY = 0.42; // of the inside of a mask
const LEAST_CUT = 80; // of 255: how dark everything beside a cut-out is at least, so that it can be seen

/** Owns the canvas of the video, and the one above it with the outlines. */
export class Player {
  /** @type {HeldTicket | null} */ held = null;
  /** @type {Overlay | null} */ #overlay = null;
  /** @type {Uint8Array | null} */ #preview = null; // a mask that is being drawn
  #due = 0; // when the next frame of the playing video is shown
  #view = WHOLE; // zoom, and the shift of the picture in px of the screen
  /** @type {Line[]} */ #lines = []; // of the frame on screen, as the next three
  /** @type {Label[]} */ #labels = [];
  /** @type {OtherMask[]} */ #others = [];

  playing = false;
  speed = 2;
  rate = 6; // annotated frames a second, at speed 1
  mode = "fill";
  colour = 0; // which of OWN
  colours = { ...OWN[0], before: BEFORE };
  brightness = 1;
  opacity = USUAL_OPACITY;
  /** @type {number | null} */ lit = null; // which of the other objects is pointed to
  showOthers = false;
  hidden = false; // the masks
  panning = false; // dragging moves the picture
  everyFrame = false; // also the frames between the annotated ones are played
  position = 0; // the wanted position
  between = 0; // the wanted frame comes so many frames after the annotated one: 0 for that one itself
  shown = -1; // the position on screen
  #shownBetween = 0;

  /** A frame is on screen. @type {(position: number) => void} */ onframe = () => {};
  /** The wanted frame is waited for, or no longer. @type {(waiting: boolean) => void} */ onbuffer = () => {};
  /** The zoom has changed. */ onview = () => {};
  /** It plays or pauses, or the speed or the mode has changed. */ onchange = () => {};

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLCanvasElement} outline  above it, as large as the stage
   */
  constructor(canvas, outline) {
    this.canvas = canvas;
    this.context = pen(canvas);
    this.outline = new Outline(outline);
    new ResizeObserver(() => this.#drawLines()).observe(outline);
  }

  /** @param {HeldTicket | null} held  null clears the screen */
  show(held) {
    this.held = held;
    this.position = this.between = 0;
    this.shown = -1;
    this.everyFrame = false;
    this.lit = null;
    this.#preview = null;
    [this.#lines, this.#labels, this.#others] = [[], [], []];
    this.wholeFrame();
    if (held === null) {
      this.play(false);
      this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      return;
    }
    this.canvas.width = held.info.width;
    this.canvas.height = held.info.height;
    held.frames.onready = () => {
      if (!this.isShown) this.#draw();
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
    if (this.held && this.isShown) this.#draw();
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
    this.#drawLines();
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

  /** Whether the wanted frame is on screen. */
  get isShown() {
    return this.shown === this.position && this.#shownBetween === this.between;
  }

  /** The frame_idx that is wanted. */
  get frame() {
    return (this.held?.timeline.frames[this.position] ?? 0) + this.between;
  }

  /** @param {number} position */
  seek(position) {
    if (!this.held) return;
    this.position = Math.max(0, Math.min(this.held.timeline.length - 1, position));
    this.between = 0;
    this.held.frames.want(this.position);
    this.#draw();
  }

  /** @param {number} frame  frame_idx, also of a frame between the annotated ones */
  seekFrame(frame) {
    if (!this.held) return;
    const { timeline, info, frames } = this.held;
    const wanted = Math.max(0, Math.min(info.frame_count - 1, frame));
    const position = timeline.frames.findLastIndex((annotated) => annotated <= wanted);
    if (position < 0 || timeline.frames[position] === wanted) return this.seek(position);
    [this.position, this.between] = [position, wanted - timeline.frames[position]];
    frames.every(info.frame_count).want(wanted);
    this.#draw();
  }

  /** Go to the annotated frame that is nearest. */
  settle() {
    if (!this.held || this.between === 0) return;
    const { frames } = this.held.timeline;
    const next = frames[this.position + 1] ?? Infinity;
    this.seek(this.position + (next - this.frame < this.between ? 1 : 0));
  }

  // The frame after the wanted one, if it is here; while every frame is played, also one between the annotated ones.
  #next() {
    if (!this.held) return null;
    const { timeline, info, frames } = this.held;
    if (!this.everyFrame) {
      const next = (this.position + 1) % timeline.length;
      frames.want(next);
      return frames.ready(next) && timeline.frames[next];
    }
    const next = (this.frame + 1) % info.frame_count;
    const position = timeline.frames.indexOf(next);
    const every = frames.every(info.frame_count);
    every.want(next); // also while an annotated frame comes next: those after it are fetched meanwhile
    if (position >= 0) frames.want(position);
    return (position < 0 ? every.ready(next) : frames.ready(position)) && next;
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
    const [first, second] = this.held?.timeline.frames ?? [];
    const perStep = this.everyFrame && second ? second - first : 1;
    return 1000 / (this.rate * this.speed * perStep);
  }

  /** @param {number} now */
  #tick(now) {
    if (!this.playing || !this.held) return;
    if (now >= this.#due && this.isShown) {
      const next = this.#next();
      if (next !== null) {
        this.seekFrame(next);
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

  // Draws the wanted frame with its masks, or nothing if that frame is not here yet.
  #draw() {
    if (!this.held) return;
    const { frames, info } = this.held;
    const bitmap = this.between ? frames.every(info.frame_count).ready(this.frame) : frames.ready(this.position);
    this.onbuffer(bitmap === null);
    if (bitmap === null) return;
    const { canvas, context } = this;
    context.filter = this.brightness === 1 ? "none" : `brightness(${this.brightness})`;
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    context.filter = "none";
    [this.#lines, this.#labels, this.#others] = [[], [], []];
    const masked = !this.hidden && this.between === 0; // only annotated frames have masks
    if (masked && (this.held.masklet || this.showOthers)) this.#paint(this.held, this.position);
    this.#drawLines();
    [this.shown, this.#shownBetween] = [this.position, this.between];
    canvas.dataset.frame = String(this.frame);
    this.onframe(this.position);
    canvas.dispatchEvent(new CustomEvent("painted", { detail: this.position })); // benchmarks wait for it
  }

  /**
   * Paint the masks of one position in the chosen mode: the insides, then the edges, the ticket's own masks on top.
   * @param {HeldTicket} held
   * @param {number} position
   */
  #paint(held, position) {
    const { info, masklet, earlier } = held;
    const { height, width } = info;
    const at = (/** @type {string} */ text) => spans(runs(text), height, width);
    let overlay = this.#overlay;
    if (overlay?.height !== height || overlay.width !== width) overlay = new Overlay(height, width);
    this.#overlay = overlay;
    const { mode, colours } = this;
    overlay.clear();
    this.#others = this.showOthers ? othersAt(held, position, at) : [];
    const drawn = this.#preview && spans(measured(this.#preview, height, width), height, width);
    const own = masklet && (drawn ?? at(masklet.rle[position]));
    const cut = own && mode === "cut-out";
    const opaque = (/** @type {number} */ share) => Math.round(255 * Math.min(1, share * this.opacity));
    if (cut) {
      overlay.flood([8, 8, 12, Math.max(LEAST_CUT, opaque(2))]);
      overlay.fill(own, [0, 0, 0, 0]);
    } else {
      for (const { spans, n, settled } of this.#others) {
        overlay.fill(spans, [...colourOf(n), opaque(n === this.lit ? 1 : settled ? 0.65 : 0.33)]);
      }
      if (own && mode !== "outline") overlay.fill(own, [...colours.fill, opaque(1)]);
    }
    for (const { spans, n } of this.#others) {
      this.#lines.push({ spans, colour: colourOf(n), thick: n === this.lit ? LIT : LINE });
      const middle = middleOf(spans);
      if (middle) this.#labels.push({ at: middle, text: String(n + 1), colour: colourOf(n), lit: n === this.lit });
    }
    if (own && !cut) this.#lines.push({ spans: own, colour: colours.line, thick: LINE });
    const then = mode === "before" && earlier?.rle[earlier.frame_idx.indexOf(held.timeline.frames[position])];
    if (own && then) this.#lines.push({ spans: at(then), colour: colours.before, thick: LINE });
    overlay.drawOn(this.context);
  }

  #drawLines() {
    const { left, top, scale } = this.#picture();
    const box = this.#stage.getBoundingClientRect();
    const place = { left: left - box.left, top: top - box.top, scale };
    this.outline.draw(this.#lines, this.#labels, place, this.canvas.height);
  }

  /**
   * Which of the other objects is at a point of the viewport on the frame on screen; null: none.
   * @param {number} clientX
   * @param {number} clientY
   */
  objectAt(clientX, clientY) {
    const at = this.toVideo(clientX, clientY);
    return this.#others.findLast(({ spans }) => isInside(spans, at))?.n ?? null;
  }

  /** @param {number | null} n  which of the other objects is pointed to */
  light(n) {
    if (n === this.lit) return;
    this.lit = n;
    this.refresh();
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

/** @typedef {{n: number, spans: Spans, settled: unknown}} OtherMask  n: which of the other objects */

/**
 * The masks of the other objects of the video on one frame.
 * @param {HeldTicket} held
 * @param {number} position
 * @param {(rle: string) => Spans} at
 * @returns {OtherMask[]}
 */
function othersAt(held, position, at) {
  const frame = held.timeline.frames[position];
  return (held.others ?? []).flatMap(({ frame_idx, rle, settled }, n) => {
    const text = rle[frame_idx.indexOf(frame)];
    return text === undefined ? [] : [{ n, spans: at(text), settled }];
  });
}
