// The outlines of masks and the numbers of objects, drawn in pixels of the screen above the picture: a line is as thin
// at every zoom. Written straight from the run lengths into the pixels of a canvas: stroking a path takes far longer.

/** @import { Colour, Point } from "../shared/types.js" */
/** @import { Spans } from "../shared/rle.js" */
import { border } from "./border.js";
import { large, pen } from "../shared/dom.js";
import { word } from "../shared/overlay.js";

/** @typedef {{spans: Spans, colour: Colour, thick: number}} Line  thick: px of the page, as in a style sheet */
/** @typedef {{at: Point, text: string, colour: Colour, lit: boolean}} Label  at: px of the video */
/** @typedef {{left: number, top: number, scale: number}} Place  of the video on the stage, px of the page */

export class Outline {
  #canvas;
  #context;
  /** @type {ImageData | null} */ #image = null; // null: the canvas has no size
  #pixels = new Uint32Array(0);
  #rows = [0, 0]; // that are written in #pixels: from … to

  /** @param {HTMLCanvasElement} canvas  as large as the stage */
  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = pen(canvas);
  }

  /**
   * Draw these lines and labels, and nothing else. Later lines are above earlier ones.
   * @param {Line[]} lines
   * @param {Label[]} labels
   * @param {Place} place
   * @param {number} height  of the masks, px of the video
   */
  draw(lines, labels, { left, top, scale }, height) {
    const ratio = window.devicePixelRatio || 1;
    this.#fit(ratio);
    const [context, image, [from, to]] = [this.#context, this.#image, this.#rows];
    if (image === null) return;
    this.#pixels.fill(0, from * image.width, to * image.width);
    this.#rows = [image.height, 0];
    const place = { left: left * ratio, top: top * ratio, scale: scale * ratio };
    for (const { spans, colour, thick } of lines) {
      const [value, wide] = [word([...colour, 255]), Math.max(1, Math.round(thick * ratio))];
      const across = (/** @type {number} */ x) => Math.round(place.left + x * place.scale - wide / 2);
      const down = (/** @type {number} */ y) => Math.round(place.top + y * place.scale - wide / 2);
      border(spans, height, (x0, y0, x1, y1) =>
        this.#fill(across(x0), down(y0), across(x1) + wide, down(y1) + wide, value));
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, image.width, image.height);
    const [first, end] = this.#rows;
    if (first < end) context.putImageData(image, 0, 0, 0, first, image.width, end - first);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const size = labels.length ? large() : 1;
    for (const label of labels) drawLabel(context, label, left + label.at[0] * scale, top + label.at[1] * scale, size);
  }

  /** @param {number} ratio  pixels of the screen for each px of the page */
  #fit(ratio) {
    const canvas = this.#canvas;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (this.#image?.width === width && this.#image.height === height) return;
    [canvas.width, canvas.height] = [width, height];
    this.#image = width && height ? this.#context.createImageData(width, height) : null;
    this.#pixels = this.#image ? new Uint32Array(this.#image.data.buffer) : new Uint32Array(0);
    this.#rows = [0, 0];
  }

  /**
   * Fill a box of pixels; what lies outside of the canvas is left out.
   * @type {(x0: number, y0: number, x1: number, y1: number, value: number) => void}
   */
  #fill(x0, y0, x1, y1, value) {
    const { width, height } = this.#canvas;
    const [left, right, top, end] = [Math.max(0, x0), Math.min(width, x1), Math.max(0, y0), Math.min(height, y1)];
    if (left >= right || top >= end) return;
    for (let y = top; y < end; y++) {
      for (let at = y * width + left, last = y * width + right; at < last; at++) this.#pixels[at] = value;
    }
    if (top < this.#rows[0]) this.#rows[0] = top;
    if (end > this.#rows[1]) this.#rows[1] = end;
  }
}

/**
 * A point inside a mask, near its middle, px; null if the mask is empty.
 * @param {Spans} spans
 * @returns {Point | null}
 */
export function middleOf({ first, from, to }) {
  let half = 0;
  for (let i = 0; i < from.length; i++) half += (to[i] - from[i]) / 2;
  for (let x = 0, i = 0; x < first.length - 1; x++) {
    for (; i < first[x + 1]; i++) half -= to[i] - from[i];
    if (half > 0 || first[x] === first[x + 1]) continue;
    let longest = first[x];
    for (let k = longest; k < first[x + 1]; k++) if (to[k] - from[k] > to[longest] - from[longest]) longest = k;
    return [x + 0.5, (from[longest] + to[longest]) / 2];
  }
  return null;
}

/**
 * Whether a mask has this point, px, inside.
 * @param {Spans} spans
 * @param {Point} point
 */
export function isInside({ first, from, to }, [x, y]) {
  const column = Math.floor(x);
  if (column < 0 || column >= first.length - 1) return false;
  for (let i = first[column]; i < first[column + 1]; i++) if (from[i] <= y && y < to[i]) return true;
  return false;
}

/**
 * @param {CanvasRenderingContext2D} c
 * @param {Label} label
 * @param {number} x  px of the page, of its middle
 * @param {number} y
 * @param {number} size  1: as in the style sheet
 */
function drawLabel(c, { text, colour, lit }, x, y, size) {
  c.font = `600 ${12 * size}px ui-sans-serif, system-ui, sans-serif`;
  const tall = 18 * size;
  const wide = Math.max(tall, c.measureText(text).width + 10 * size);
  const rgb = `rgb(${colour.join(" ")})`;
  c.beginPath();
  c.roundRect(x - wide / 2, y - tall / 2, wide, tall, tall / 2);
  c.fillStyle = lit ? rgb : "rgb(12 12 16 / 0.82)";
  c.fill();
  c.lineWidth = 1.5 * size;
  c.strokeStyle = rgb;
  c.stroke();
  c.fillStyle = lit ? "#101014" : "#fff";
  c.textAlign = "center";
  c.textBaseline = "middle";
  c.fillText(text, x, y + 0.5);
}
