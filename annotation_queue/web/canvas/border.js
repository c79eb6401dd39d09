// The border of a mask, straight from its run lengths. What lies on the border of the frame is no border of the object.

/** @import { Colour } from "../shared/types.js" */
/** @import { Spans } from "../shared/rle.js" */

/**
 * Find the border as level and upright lines between pixels.
 * @param {Spans} spans
 * @param {number} height  of the mask, px
 * @param {(x0: number, y0: number, x1: number, y1: number) => void} found  the ends of a line, px
 */
export function border({ first, from, to }, height, found) {
  /** @type {number[]} */
  let before = []; // the ends of the spans in the column before
  for (let x = 0; x < first.length - 1; x++) {
    const [begin, end] = [first[x], first[x + 1]];
    if (begin === end && before.length === 0) continue;
    /** @type {number[]} */
    const here = [];
    for (let i = begin; i < end; i++) {
      if (from[i] > 0) found(x, from[i], x + 1, from[i]);
      if (to[i] < height) found(x, to[i], x + 1, to[i]);
      here.push(from[i], to[i]);
    }
    // where only one of two columns is inside, there is a line between them
    if (x > 0) stretches(before, here, (y0, y1) => found(x, y0, x, y1));
    before = here;
  }
}

/**
 * Draw the border on a canvas that has the size of the mask and is not zoomed.
 * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
 * @param {Spans} spans
 * @param {number} height  of the mask, px
 * @param {Colour} colour
 * @param {number} thick  px
 */
export function drawBorder(context, spans, height, colour, thick) {
  context.fillStyle = `rgb(${colour.join(" ")})`;
  border(spans, height, (x0, y0, x1, y1) =>
    context.fillRect(x0 - thick / 2, y0 - thick / 2, x1 - x0 + thick, y1 - y0 + thick));
}

/**
 * The stretches that lie in one list of stretches [from, to, from, to, …] and not in the other.
 * @param {number[]} one
 * @param {number[]} other
 * @param {(from: number, to: number) => void} found
 */
function stretches(one, other, found) {
  let [i, j, begun] = [0, 0, -1];
  while (i < one.length || j < other.length) {
    const y = j >= other.length || one[i] <= other[j] ? one[i++] : other[j++];
    if (begun < 0) begun = y;
    else {
      if (begun < y) found(begun, y);
      begun = -1;
    }
  }
}
