// One frame with masks over it, on a canvas of its own. Nothing can be edited there.

/** @import { Colour, Prompt, VideoInfo } from "../shared/types.js" */
import { drawBorder } from "../canvas/border.js";
import { pen } from "../shared/dom.js";
import { drawMarks } from "../canvas/marks.js";
import { Overlay } from "../shared/overlay.js";
import { runs, spans } from "../shared/rle.js";

const MARKED_AT = 720; // px: on a video of this width, marks have their own size

/** @typedef {{fill: Colour, line: Colour}} Look */

export class Picture {
  #overlay;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {VideoInfo} info
   * @param {Look} look  the colours of its masks
   */
  constructor(canvas, info, look) {
    this.canvas = canvas;
    this.info = info;
    this.look = look;
    canvas.width = info.width;
    canvas.height = info.height;
    this.#overlay = new Overlay(info.height, info.width);
  }

  /**
   * @param {ImageBitmap} bitmap
   * @param {number} frameIdx
   * @param {string | undefined} rle  the mask
   * @param {Prompt} [prompt]
   */
  draw(bitmap, frameIdx, rle, prompt) {
    const { canvas, info, look } = this;
    const context = pen(canvas);
    context.drawImage(bitmap, 0, 0, info.width, info.height);
    const overlay = this.#overlay;
    if (rle) {
      const mask = spans(runs(rle), info.height, info.width);
      overlay.clear();
      overlay.fill(mask, [...look.fill, 100]);
      overlay.drawOn(context);
      const scale = canvas.clientWidth ? info.width / canvas.clientWidth : 1;
      drawBorder(context, mask, info.height, look.line, Math.max(1, Math.round(2 * scale)));
    }
    const scale = Math.max(1, info.width / MARKED_AT);
    context.save();
    context.scale(scale, scale);
    const marks = { prompt, box: null, corners: [], pointer: null, brush: 0, erases: false };
    drawMarks(context, marks, ([x, y]) => [x / scale, y / scale]);
    context.restore();
    canvas.dataset.frame = String(frameIdx);
  }
}
