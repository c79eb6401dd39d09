// Paints masks straight from their run lengths, without decoding them. Runs go down the columns of a mask. The picture
// is therefore kept transposed, where each run is one stretch of memory, and transposed back when it is drawn.

/** @import { Rgba } from "./types.js" */
/** @import { Spans } from "./rle.js" */

/** Later paint replaces earlier paint. */
export class Overlay {
  /**
   * @param {number} height
   * @param {number} width
   */
  constructor(height, width) {
    this.height = height;
    this.width = width;
    this.canvas = new OffscreenCanvas(height, width);
    const context = this.canvas.getContext("2d");
    if (context === null) throw new Error("this browser draws no canvas");
    this.context = context;
    this.image = this.context.createImageData(height, width);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.columns = [width, 0]; // the painted columns: from … to
    this.stale = [width, 0]; // the columns that the canvas still shows from before
  }

  clear() {
    const [from, to] = this.columns;
    if (from < to) this.pixels.fill(0, from * this.height, to * this.height);
    this.stale = this.columns;
    this.columns = [this.width, 0];
  }

  /** @param {Rgba} colour  for every pixel */
  flood(colour) {
    this.pixels.fill(word(colour));
    this.columns = [0, this.width];
  }

  /**
   * Paint the inside of a mask.
   * @param {Spans} mask
   * @param {Rgba} colour
   */
  fill({ first, from, to }, colour) {
    const value = word(colour);
    for (let x = 0, i = 0; x < this.width; x++) {
      for (; i < first[x + 1]; i++) this.pixels.fill(value, x * this.height + from[i], x * this.height + to[i]);
    }
    this.touch(first);
  }

  /** @param {Int32Array} first */
  touch(first) {
    const { columns } = this;
    const last = first[this.width];
    if (last === 0) return;
    let [from, to] = [0, this.width];
    while (first[from + 1] === 0) from++;
    while (first[to - 1] === last) to--;
    this.columns = [Math.min(columns[0], from), Math.max(columns[1], to)];
  }

  /** @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context */
  drawOn(context) {
    const { canvas, columns, height, image, stale } = this;
    const [from, to] = [Math.min(columns[0], stale[0]), Math.max(columns[1], stale[1])];
    this.stale = [this.width, 0];
    if (from < to) this.context.putImageData(image, 0, 0, 0, from, height, to - from);
    const count = columns[1] - columns[0];
    if (count <= 0) return;
    context.save();
    context.imageSmoothingEnabled = false;
    context.setTransform(0, 1, 1, 0, 0, 0); // x and y change places
    context.drawImage(canvas, 0, columns[0], height, count, 0, columns[0], height, count);
    context.restore();
  }
}

/** A colour as one word of image data. @param {Rgba} colour */
export function word([red, green, blue, alpha]) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0; // the byte order of image data: red first
}
