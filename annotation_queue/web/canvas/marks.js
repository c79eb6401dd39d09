// Draws the marks above the video: clicks, boxes, a polygon's corners, the brush. Knows nothing of what they do.

/** @import { Point, Prompt } from "../shared/types.js" */
import { pen } from "../shared/dom.js";

const POSITIVE = "#3ddc84";
const NEGATIVE = "#ff5470";

/**
 * @typedef {object} Marks
 * @property {Prompt | undefined} prompt  px of the video
 * @property {[from: Point, to: Point] | null} box  a box that is being drawn, px of the video
 * @property {Point[]} corners  of a polygon that is being drawn, px of the video
 * @property {Point | null} pointer  px of the stage
 * @property {number} brush  radius in px of the stage; 0: there is no brush
 * @property {boolean} erases
 */

/**
 * Clear the canvas, at the screen's own resolution.
 * @param {HTMLCanvasElement} canvas
 */
export function clearMarks(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const c = pen(canvas);
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  return c;
}

/**
 * @param {CanvasRenderingContext2D} c
 * @param {Marks} marks
 * @param {(point: Point) => Point} screen  px of the video → px of the stage
 * @param {number} [size]  of the marks; 1: as on a usual screen
 */
export function drawMarks(c, { prompt, box, corners, pointer, brush, erases }, screen, size = 1) {
  if (prompt?.box_xyxy) {
    const [x0, y0, x1, y1] = prompt.box_xyxy;
    drawBox(c, screen([x0, y0]), screen([x1, y1]), POSITIVE, size);
  }
  prompt?.points_xy.forEach((xy, i) => drawClick(c, screen(xy), prompt.labels[i] === 1, size));
  if (box) drawBox(c, screen(box[0]), screen(box[1]), "#fff", size);
  if (corners.length) {
    c.beginPath();
    for (const xy of corners) c.lineTo(...screen(xy));
    if (pointer) c.lineTo(...pointer);
    c.strokeStyle = "#fff";
    c.lineWidth = 1.5 * size;
    c.stroke();
    for (const xy of corners) disc(c, screen(xy), 3 * size, "#fff");
  }
  if (pointer && brush) {
    c.beginPath();
    c.arc(...pointer, brush, 0, 7);
    c.lineWidth = 3 * size;
    c.strokeStyle = "rgb(0 0 0 / 0.5)";
    c.stroke();
    c.lineWidth = 1.5 * size;
    c.strokeStyle = erases ? NEGATIVE : "#fff";
    c.stroke();
  }
}

/** @type {(c: CanvasRenderingContext2D, at: Point, radius: number, colour: string) => void} */
function disc(c, at, radius, colour) {
  c.beginPath();
  c.arc(...at, radius, 0, 7);
  c.fillStyle = colour;
  c.fill();
}

/**
 * A plus or a minus on a disc, so that the sign shows without the colour.
 * @param {CanvasRenderingContext2D} c
 * @param {Point} at
 * @param {boolean} positive
 * @param {number} size
 */
function drawClick(c, [x, y], positive, size) {
  disc(c, [x, y], 9 * size, "rgb(0 0 0 / 0.55)");
  disc(c, [x, y], 7.5 * size, positive ? POSITIVE : NEGATIVE);
  c.fillStyle = "#101014";
  c.fillRect(x - 4 * size, y - size, 8 * size, 2 * size);
  if (positive) c.fillRect(x - size, y - 4 * size, 2 * size, 8 * size);
}

/** @type {(c: CanvasRenderingContext2D, from: Point, to: Point, colour: string, size: number) => void} */
function drawBox(c, [x0, y0], [x1, y1], colour, size) {
  c.lineWidth = 3.5 * size;
  c.strokeStyle = "rgb(0 0 0 / 0.5)";
  c.strokeRect(x0, y0, x1 - x0, y1 - y0);
  c.lineWidth = 1.75 * size;
  c.strokeStyle = colour;
  c.strokeRect(x0, y0, x1 - x0, y1 - y0);
}
