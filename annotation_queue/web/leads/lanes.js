// The masks of one or two versions over time: where each shows the object, how alike they are, what a step changes.

import { large, pen } from "../shared/dom.js";

// What follows is scaled by `large` on a large screen.
const LABEL = 74; // px, left of the lanes
const PAD = 12; // px, right of them
const HIGH = 12; // px, of a lane
const GAP = 6;

/**
 * @typedef {object} Shown
 * @property {number[]} frames  frame_idx of the annotated frames
 * @property {number} position  of the frame on screen
 * @property {boolean[]} one  whether this version shows the object, frame by frame
 * @property {boolean[] | null} other  the same of the one beside it
 * @property {number[] | null} alike  their IoU
 * @property {Set<number>} changed  frames whose mask the step changes
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Shown} shown
 * @param {(name: string) => string} colour  custom property → a colour that canvas understands
 */
export function drawLanes(canvas, shown, colour) {
  const size = large();
  const ratio = (window.devicePixelRatio || 1) * size;
  const [width, height] = [canvas.clientWidth / size, canvas.clientHeight / size];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const c = pen(canvas);
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  const cell = (width - LABEL - PAD) / Math.max(1, shown.frames.length);
  const x = (/** @type {number} */ n) => LABEL + n * cell;
  const wide = Math.max(1, cell - (cell > 5 ? 1 : 0));
  c.font = "12px ui-sans-serif, system-ui, sans-serif";
  c.textBaseline = "middle";
  let top = 4;
  /** @type {(label: string, draw: (n: number, top: number) => void) => void} */
  const lane = (label, draw) => {
    c.fillStyle = colour("--soft");
    c.fillText(label, 8, top + HIGH / 2);
    c.fillStyle = colour("--band");
    c.fillRect(LABEL, top, width - LABEL - PAD, HIGH);
    shown.frames.forEach((_, n) => draw(n, top));
    top += HIGH + GAP;
  };
  const bar = (/** @type {boolean[]} */ present, /** @type {string} */ name) =>
    (/** @type {number} */ n, /** @type {number} */ at) => {
      if (!present[n]) return;
      c.fillStyle = colour(name);
      c.fillRect(x(n), at, wide, HIGH);
    };
  lane("This step", bar(shown.one, "--mask"));
  shown.frames.forEach((frame, n) => {
    if (!shown.changed.has(frame)) return;
    c.fillStyle = colour("--text");
    c.fillRect(x(n), top - GAP + 1, wide, 3);
  });
  const { other, alike } = shown;
  if (other) lane("Other", bar(other, "--refine"));
  if (alike) {
    lane("Alike", (n, at) => {
      const high = Math.round(alike[n] * HIGH);
      c.fillStyle = colour(alike[n] < 0.5 ? "--reject" : "--score");
      c.fillRect(x(n), at + HIGH - high, wide, high);
    });
  }
  c.fillStyle = colour("--text");
  c.fillRect(x(shown.position) + cell / 2 - 1, 0, 2, top);
}

/**
 * The position under a point of the canvas, px.
 * @param {HTMLCanvasElement} canvas
 * @param {number} offsetX
 * @param {number} count  of frames
 */
export function positionAt(canvas, offsetX, count) {
  const size = large();
  const share = (offsetX / size - LABEL) / (canvas.clientWidth / size - LABEL - PAD);
  return Math.max(0, Math.min(count - 1, Math.floor(share * count)));
}
