// One comment of a thread, as an item of a list: who wrote it, when, about which frame, and the text.

/** @import { Comment } from "./types.js" */
import { element } from "./dom.js";

/**
 * @param {Comment} comment
 * @param {number} n  its place in the thread, from 0: the number of its pin on the picture
 * @param {string} when
 * @param {(frameIdx: number) => void} goTo  the frame that it is about
 */
export function commentItem({ person, frame_idx, x, text }, n, when, goTo) {
  const head = element("span", { className: "said-by" }, element("b", {}, person), ` · ${when}`);
  if (frame_idx !== null) {
    const where = x === null ? `frame ${frame_idx}` : `frame ${frame_idx}, point ${n + 1}`;
    const go = { type: /** @type {const} */ ("button"), className: "quiet bordered", onclick: () => goTo(frame_idx) };
    head.append(" · ", element("button", { ...go, ariaLabel: `Go to ${where}` }, where));
  }
  return element("li", {}, head, element("p", {}, text));
}

/** The position of the frame that is nearest to this one. @type {(frames: number[], frameIdx: number) => number} */
export function nearest(frames, frameIdx) {
  const far = frames.map((frame) => Math.abs(frame - frameIdx));
  return far.indexOf(Math.min(...far));
}
