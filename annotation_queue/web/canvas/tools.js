// The tools that change a mask, the box that one draws, and how far a propagation goes.

/** @import { Box, Point } from "../shared/types.js" */

/** @typedef {"click" | "box" | "brush" | "eraser" | "polygon"} Tool */

/** @type {{tool: Tool, title: string, needs: string}[]}  needs: what the ticket's phase must permit */
export const TOOLS = [
  { tool: "click", title: "Click", needs: "click" },
  { tool: "box", title: "Box", needs: "box" },
  { tool: "brush", title: "Brush", needs: "stroke" },
  { tool: "eraser", title: "Eraser", needs: "stroke" },
  { tool: "polygon", title: "Polygon", needs: "stroke" },
];

/** How many frames a propagation goes at most: the choices; 0: to the end. */
export const REACHES = [0, 5, 20, 60];

/**
 * The frames that a propagation does not go beyond, as its operation names them.
 * @param {"forward" | "backward" | "both"} direction
 * @param {number[]} frames  frame_idx of the annotated frames
 * @param {number} position  where it begins
 * @param {number} reach  how many frames it goes at most; 0: to the end
 */
export function bounds(direction, frames, position, reach) {
  if (reach === 0) return {};
  const first = frames[Math.max(0, position - reach)];
  const last = frames[Math.min(frames.length - 1, position + reach)];
  return direction === "both" ? { first, last } : { last: direction === "forward" ? last : first };
}

const SMALLEST_BOX = 3; // px; a smaller one is a slip of the hand

/** @type {(value: number) => number} */
export const tenth = (value) => Math.round(value * 10) / 10;

/**
 * The box between two corners; null for one that is too small to be meant.
 * @param {Point} one
 * @param {Point} other  px
 * @returns {Box | null}
 */
export function boxBetween(one, other) {
  const [x0, x1] = [one[0], other[0]].sort((a, b) => a - b);
  const [y0, y1] = [one[1], other[1]].sort((a, b) => a - b);
  if (x1 - x0 <= SMALLEST_BOX || y1 - y0 <= SMALLEST_BOX) return null;
  return [tenth(x0), tenth(y0), tenth(x1), tenth(y1)];
}
