// The tools that change a mask, and how far a propagation goes.

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
