// One masklet of the sheet: a small picture, cut to where the object goes, that plays in a loop.

/** @import { HeldTicket } from "../shared/held.js" */
/** @import { Masklet } from "../shared/types.js" */
import { drawBorder } from "./border.js";
import { frame as fetchFrame } from "../shared/api.js";
import { element, pen } from "../shared/dom.js";
import { Overlay } from "../shared/overlay.js";
import { runs, spans } from "../shared/rle.js";
import { many } from "../shared/words.js";

const WIDTH = 320; // px of a tile's picture: with twelve tiles of 120 frames, all pictures take 330 MB
const HEIGHT = 180;
const MARGIN = 0.3; // around the object's way, as a share of its size
const LEAST = 0.25; // of the frame's width: what is cut out is never smaller
const RETRY_MS = 2000;
const FILL = 108; // opacity of the mask, 0 to 255, as on the large picture

/** @typedef {[red: number, green: number, blue: number]} Colour */
/** @typedef {[x: number, y: number, width: number, height: number]} Cut  px of the video */

export class Tile {
  /** @type {(ImageBitmap | null)[]} */ #pictures; // by position
  #cut;
  #aborter = new AbortController();
  #isInView = false;
  #observer;
  #canvas = element("canvas", { width: WIDTH, height: HEIGHT });
  #bar = element("progress", { max: 1, value: 0 });
  #said = element("p", { className: "label" });
  #least; // frames that must be seen before an accept
  #colours;
  /** The position that is on screen. */
  shown = 0;

  /**
   * @param {HeldTicket} held  of a calm masklet
   * @param {{fill: Colour, line: Colour}} colours  of the mask
   * @param {{onaccept: () => void, onopen: () => void}} on
   */
  constructor(held, colours, { onaccept, onopen }) {
    this.held = held;
    this.#colours = colours;
    const { masklet } = held;
    if (masklet === null) throw new Error("a tile shows a masklet");
    this.#cut = cutOf(masklet);
    this.#pictures = held.timeline.frames.map(() => null);
    this.#least = held.watching.seen + held.watching.missing("accept", held.watch);
    this.#canvas.setAttribute("aria-hidden", "true");
    this.#bar.setAttribute("aria-label", "Watched");
    const accept = element("button", { type: "button", className: "quiet bordered", tabIndex: -1, onclick: onaccept }, "Accept");
    const open = element("button", { type: "button", className: "quiet bordered", tabIndex: -1, onclick: onopen }, "Open");
    this.element = element(
      "article", { className: "tile", tabIndex: -1 },
      this.#canvas, this.#bar, element("div", { className: "tile-foot" }, this.#said, accept, open),
    );
    this.#observer = new IntersectionObserver(
      (changes) => (this.#isInView = (changes.at(-1)?.intersectionRatio ?? 0) > 0.95), { threshold: [0, 0.96] },
    );
    this.#observer.observe(this.#canvas);
    this.#say();
  }

  /** Fetch the frames that are missing, one after the other. Ends when all are here, or the tile is closed. */
  async load() {
    const { signal } = this.#aborter;
    for (let position = 0; position < this.#pictures.length && !signal.aborted; ) {
      try {
        const picture = await this.#picture(position, signal);
        if (signal.aborted) return picture.close();
        this.#pictures[position] = picture;
        this.held.frames.ontrouble(null);
        position++;
      } catch (error) {
        if (signal.aborted) return;
        this.held.frames.ontrouble(error);
        await new Promise((done) => setTimeout(done, RETRY_MS));
      }
    }
  }

  /**
   * A frame with its mask, cut to the object.
   * @param {number} position
   * @param {AbortSignal} signal
   */
  async #picture(position, signal) {
    const { held } = this;
    const { masklet } = held;
    if (masklet === null) throw new Error("a tile shows a masklet");
    const { height, width } = masklet;
    const bitmap = await createImageBitmap(await fetchFrame(held.ticket.video_id, held.timeline.frames[position], signal));
    const { context, overlay } = paperOf(height, width);
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    const mask = spans(runs(masklet.rle[position]), height, width);
    overlay.clear();
    overlay.fill(mask, [...this.#colours.fill, FILL]);
    overlay.drawOn(context);
    drawBorder(context, mask, height, this.#colours.line, Math.max(1, Math.round(this.#cut[2] / WIDTH)));
    const [x, y, w, h] = this.#cut;
    const scale = Math.min(WIDTH / w, HEIGHT / h);
    const small = new OffscreenCanvas(Math.round(w * scale), Math.round(h * scale));
    const pencil = small.getContext("2d");
    if (pencil === null) throw new Error("this browser draws no canvas");
    pencil.imageSmoothingQuality = "medium";
    pencil.drawImage(context.canvas, x, y, w, h, 0, 0, small.width, small.height);
    return small.transferToImageBitmap();
  }

  /**
   * Draw the frame of this moment. It counts as seen if the whole picture is in view.
   * @param {number} beat  positions played since the sheet was opened
   */
  draw(beat) {
    const here = this.#pictures.indexOf(null);
    const count = here < 0 ? this.#pictures.length : here;
    if (count === 0) return;
    const position = beat % count;
    const picture = this.#pictures[position];
    if (!picture) return;
    const context = pen(this.#canvas);
    context.clearRect(0, 0, WIDTH, HEIGHT);
    context.drawImage(picture, (WIDTH - picture.width) / 2, (HEIGHT - picture.height) / 2);
    this.#canvas.dataset.frame = String(this.held.timeline.frames[position]);
    this.shown = position;
    if (!this.#isInView || document.visibilityState !== "visible") return;
    this.held.watching.see(position);
    this.#say();
  }

  /** Whether enough was seen for an accept. */
  get isWatched() {
    return this.held.watching.missing("accept", this.held.watch) === 0;
  }

  #say() {
    const { seen, frames } = this.held.watching;
    this.#said.textContent = `Seen ${seen} of ${many(frames, "frame")}`;
    this.#bar.value = this.#least ? Math.min(1, seen / this.#least) : 1;
    this.element.classList.toggle("watched", this.isWatched);
  }

  close() {
    this.#aborter.abort();
    this.#observer.disconnect();
    for (const picture of this.#pictures) picture?.close();
    this.#pictures.fill(null);
    this.element.remove();
  }
}

/** @type {{context: OffscreenCanvasRenderingContext2D, overlay: Overlay} | null} */
let paper = null;

/**
 * A whole frame to draw on, and its overlay. All tiles share one, as a 4K frame takes 33 MB: to be used at once.
 * @param {number} height
 * @param {number} width
 */
function paperOf(height, width) {
  if (paper?.overlay.height !== height || paper.overlay.width !== width) {
    const context = new OffscreenCanvas(width, height).getContext("2d");
    if (context === null) throw new Error("this browser draws no canvas");
    paper = { context, overlay: new Overlay(height, width) };
  }
  return paper;
}

/**
 * The part of the frame in which the object moves, with a margin, in the shape of a tile where the frame permits it.
 * @param {Pick<Masklet, "rle" | "height" | "width">} masklet
 * @returns {Cut}
 */
export function cutOf({ rle, height, width }) {
  let [x0, y0, x1, y1] = [width, height, 0, 0];
  for (const text of rle) {
    const { first, from, to } = spans(runs(text), height, width);
    for (let x = 0; x < width; x++) {
      if (first[x] === first[x + 1]) continue;
      x0 = Math.min(x0, x);
      x1 = Math.max(x1, x + 1);
      y0 = Math.min(y0, from[first[x]]);
      y1 = Math.max(y1, to[first[x + 1] - 1]);
    }
  }
  if (x0 >= x1) return [0, 0, width, height];
  const wide = Math.max((1 + MARGIN) * (x1 - x0), LEAST * width, ((1 + MARGIN) * (y1 - y0) * WIDTH) / HEIGHT);
  const w = Math.min(width, Math.round(wide));
  const h = Math.min(height, Math.max(Math.round((wide * HEIGHT) / WIDTH), Math.round((1 + MARGIN) * (y1 - y0))));
  const inside = (/** @type {number} */ middle, /** @type {number} */ size, /** @type {number} */ all) =>
    Math.round(Math.max(0, Math.min(all - size, middle - size / 2)));
  return [inside((x0 + x1) / 2, w, width), inside((y0 + y1) / 2, h, height), w, h];
}
