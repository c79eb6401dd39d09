// Fingers on the video: one finger works like the pointer, two move and zoom the picture and do nothing else.

/** @import { Point } from "../shared/types.js" */
/** @import { Player } from "./player.js" */

export class Touches {
  /** @type {Map<number, Point>} */ #at = new Map(); // px of the viewport, by finger
  #player;

  /** @param {Player} player  whose picture is moved */
  constructor(player) {
    this.#player = player;
  }

  /**
   * Whether this finger is not the only one: what the first one began is no click.
   * @param {PointerEvent} event
   */
  down({ pointerType, pointerId, clientX, clientY }) {
    if (pointerType !== "touch") return false;
    this.#at.set(pointerId, [clientX, clientY]);
    return this.#at.size > 1;
  }

  /**
   * Whether this movement is one of several fingers, which has moved the picture.
   * @param {PointerEvent} event
   */
  move({ pointerId, clientX, clientY }) {
    if (!this.#at.has(pointerId)) return false;
    const [before, wide] = [this.#middle(), this.#width()];
    this.#at.set(pointerId, [clientX, clientY]);
    if (this.#at.size < 2) return false;
    const [x, y] = this.#middle();
    this.#player.pan(x - before[0], y - before[1]);
    if (wide > 0) this.#player.zoom(this.#width() / wide, x, y);
    return true;
  }

  /** @param {PointerEvent} event */
  up({ pointerId }) {
    this.#at.delete(pointerId);
  }

  /** @returns {Point} */
  #middle() {
    const all = [...this.#at.values()];
    return [all.reduce((sum, [x]) => sum + x, 0) / all.length, all.reduce((sum, [, y]) => sum + y, 0) / all.length];
  }

  // How far the first two fingers are apart, px; 0 for one.
  #width() {
    const [one, other] = this.#at.values();
    return one && other ? Math.hypot(one[0] - other[0], one[1] - other[1]) : 0;
  }
}
