// One row for each other object of the video: where it is present, what a person did in it, the model's scores and the
// steadiness of its masks. A click goes to the object. A row is drawn when it scrolls into view.

/** @import { VideoObject } from "../shared/held.js" */
/** @import { Timeline } from "../shared/timeline.js" */
import { element, large, pen } from "../shared/dom.js";
import { colourOf } from "../canvas/palette.js";
import { area, iou } from "../shared/rle.js";
import { many } from "../shared/words.js";

const TALL = 20; // px

/**
 * What a row shows, by position of the timeline.
 * @typedef {object} Facts
 * @property {(boolean | undefined)[]} here  undefined: nobody has masked this frame
 * @property {(number | undefined)[]} scores
 * @property {number[]} steady
 * @property {boolean[]} prompted
 * @property {boolean[]} drawn
 * @property {boolean[]} locked
 */

/** @type {WeakMap<VideoObject, Facts>} */
const facts = new WeakMap(); // computed once for each object

/**
 * A button for each object.
 * @param {VideoObject[]} objects
 * @param {Timeline} timeline
 * @param {(name: string) => string} colour  custom property → a colour that canvas understands
 * @param {(object: VideoObject, position: number) => void} onpick  position: where the object begins
 */
export function rowsOf(objects, timeline, colour, onpick) {
  /** @type {Map<Element, () => void>} */
  const draws = new Map();
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) draws.get(target)?.();
  });
  return objects.map((object, n) => {
    const canvas = element("canvas", { ariaHidden: "true" });
    const title = `Object ${n + 1}, ${object.held ? "yours" : object.settled ? "done" : "open"}`;
    const row = element(
      "button",
      {
        type: "button",
        id: `other-${n}`,
        className: object.held ? "other mine" : "other",
        title: object.held ? "Continue with this object" : "Go to the first frame of this object",
        ariaLabel: title,
      },
      element("span", {}, title.replace(/^Object |,/g, "")),
      canvas,
    );
    draws.set(row, () => {
      const about = read(object, timeline);
      row.ariaLabel = `${title}: ${inWords(about)}`;
      draw(canvas, about, timeline.lowScore, `rgb(${colourOf(n).join(" ")})`, colour);
    });
    row.addEventListener("click", () => onpick(object, Math.max(0, read(object, timeline).here.indexOf(true))));
    seen.observe(row);
    return row;
  });
}

/**
 * @param {VideoObject} object
 * @param {Timeline} timeline
 * @returns {Facts}
 */
function read(object, timeline) {
  const draft = object.held?.draft;
  const known = facts.get(object);
  if (known) return known;
  const place = new Map(object.frame_idx.map((frame, i) => [frame, i]));
  const places = timeline.frames.map((frame) => (draft && !draft.masks.has(frame) ? undefined : place.get(frame)));
  const rles = places.map((i) => (i === undefined ? undefined : object.rle[i]));
  const here = rles.map((rle) => (rle === undefined ? undefined : area(rle) > 0));
  /** @type {Facts} */
  const about = {
    here,
    scores: places.map((i, at) => (i !== undefined && here[at] ? object.score[i] : undefined)),
    steady: rles.map((rle, i) => (here[i] && here[i - 1] ? iou(rles[i - 1] ?? "", rle ?? "") : 1)),
    prompted: timeline.frames.map((frame) => Boolean(draft?.prompts.has(frame))),
    drawn: timeline.frames.map((frame) => Boolean(draft?.edited.has(frame) && !draft.prompts.has(frame))),
    locked: timeline.frames.map((frame) => Boolean(draft?.locked.has(frame))),
  };
  facts.set(object, about);
  return about;
}

/** @param {Facts} about */
function inWords({ here, prompted, drawn, locked }) {
  const count = (/** @type {unknown[]} */ list) => list.filter(Boolean).length;
  const parts = [[count(prompted), "prompted"], [count(drawn), "drawn"], [count(locked), "locked"]];
  const done = parts.filter(([n]) => n).map((part) => part.join(" "));
  return [`in view in ${count(here)} of ${many(here.length, "frame")}`, ...done].join(", ");
}

/**
 * From the top: presence with what a person did, score, steadiness.
 * @param {HTMLCanvasElement} canvas
 * @param {Facts} about
 * @param {number} lowScore  below it, a score has the colour of doubt
 * @param {string} own  the object's colour
 * @param {(name: string) => string} colour
 */
function draw(canvas, { here, scores, steady, prompted, drawn, locked }, lowScore, own, colour) {
  const size = large();
  const ratio = (window.devicePixelRatio || 1) * size;
  const width = canvas.clientWidth / size;
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(TALL * ratio)];
  const c = pen(canvas);
  c.scale(ratio, ratio);
  const cell = width / here.length;
  const wide = Math.max(1, cell - (cell > 5 ? 1 : 0));
  const [band, doubt, calm, text, panel, soft] = ["--band", "--refine", "--score", "--text", "--panel", "--soft"].map(colour);
  c.fillStyle = band;
  c.fillRect(0, 1, width, 7);
  c.fillRect(0, 16, width, 3);
  here.forEach((present, i) => {
    const x = i * cell;
    if (present === false) bar(c, soft, x, 4, cell, 1);
    if (!present) return;
    bar(c, own, x, 1, cell + 0.6, 7);
    const score = scores[i];
    if (score !== undefined) {
      const tall = 5 * Math.max(0.2, Math.min(1, (score - 0.5) / 0.5));
      bar(c, score < lowScore ? doubt : calm, x, 15 - tall, wide, tall);
    }
    const fall = Math.min(1, (1 - steady[i]) / 0.5);
    c.globalAlpha = fall < 0.1 ? 0 : fall;
    bar(c, doubt, x, 16, wide, 3);
    c.globalAlpha = 1;
  });
  here.forEach((_, i) => {
    const middle = (i + 0.5) * cell;
    if (locked[i]) {
      bar(c, panel, middle - 4, 0, 8, 9);
      bar(c, text, middle - 3, 1, 6, 7);
    } else if (prompted[i] || drawn[i]) {
      disc(c, panel, middle, 4.5);
      disc(c, prompted[i] ? colour("--accept") : text, middle, 3.5);
    }
  });
}

/** @type {(c: CanvasRenderingContext2D, fill: string, x: number, y: number, width: number, height: number) => void} */
function bar(c, fill, x, y, width, height) {
  c.fillStyle = fill;
  c.fillRect(x, y, width, height);
}

/** @type {(c: CanvasRenderingContext2D, fill: string, x: number, radius: number) => void} */
function disc(c, fill, x, radius) {
  c.fillStyle = fill;
  c.beginPath();
  c.arc(x, 4.5, radius, 0, 7);
  c.fill();
}
