// The strip under the video: small pictures, presence, scores, suspect frames and the frame on screen. Click or drag
// to seek.

/** @import { HeldTicket } from "../shared/held.js" */
import { large, pen } from "../shared/dom.js";

const LABELS = 74; // px, left of the bands
const PAD = 14; // px, right of them
const [LEAST, MOST] = [0.5, 1]; // the scores at the ends of their band's axis

const FONT = "11px ui-sans-serif, system-ui, sans-serif";
const ROOM = 20; // px, that the two numbers of the axis need
const FINE = "9px ui-sans-serif, system-ui, sans-serif";

/**
 * Where everything is on the strip, px; everything is scaled by `large` on a large screen.
 * @typedef {object} Layout
 * @property {CanvasRenderingContext2D} c
 * @property {HeldTicket} held
 * @property {number} cell  width of one frame
 * @property {number} wide  width of one frame's bar
 * @property {(position: number) => number} x  left edge of a frame
 * @property {number} width
 * @property {number} film  height of the small pictures
 * @property {number} ticks  the marks of suspect frames: their upper edge
 * @property {number} presence  the upper edge of this band, as all below
 * @property {number} score
 * @property {number} scoreHeight
 * @property {number} steady
 * @property {number} axis
 */

export class Strip {
  /** @type {HeldTicket | null} */ #held = null;
  /** @type {number | null} */ #hover = null;
  #position = 0;
  #large = 1; // how much everything grows on a large screen
  #asked = false; // a drawing is due
  #canvas;
  #colour;

  /** @type {Layout | null} */ #layout = null; // of the last drawing
  #threshold = false; // the threshold of suspect frames is dragged

  /** A person wants another position. @type {(position: number) => void} */ onseek = () => {};
  /** A person wants another threshold of suspect frames. @type {(score: number) => void} */ onthreshold = () => {};

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(name: string) => string} colour  custom property → a colour that canvas understands
   */
  constructor(canvas, colour) {
    this.#canvas = canvas;
    this.#colour = colour;
    new ResizeObserver(() => {
      this.#large = large();
      this.draw();
    }).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#threshold = this.#isOnAxis(event);
      this.#drag(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      canvas.style.cursor = this.#threshold || this.#isOnAxis(event) ? "ns-resize" : "";
      this.#hover = this.#threshold ? null : this.#at(event.offsetX);
      if (event.buttons & 1) this.#drag(event);
      this.draw();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.#threshold = false));
    canvas.addEventListener("pointerleave", () => {
      this.#hover = null;
      this.draw();
    });
  }

  /** @param {HeldTicket | null} held */
  show(held) {
    this.#held = held;
    this.#position = 0;
    if (held) {
      held.frames.onthumb = () => {
        if (this.#asked || this.#held !== held) return;
        this.#asked = true; // many come at once: one drawing shows them all
        requestAnimationFrame(() => {
          this.#asked = false;
          this.draw();
        });
      };
    }
    this.draw();
  }

  /** @param {number} position  is on screen now */
  move(position) {
    this.#position = position;
    this.draw();
  }

  /** @param {number} x  px */
  #at(x) {
    if (!this.#held) return null;
    const { length } = this.#held.timeline;
    const cell = (this.#canvas.clientWidth / this.#large - LABELS - PAD) / length;
    return Math.max(0, Math.min(length - 1, Math.floor((x / this.#large - LABELS) / cell)));
  }

  /** Whether the pointer is on the axis of the scores. @param {PointerEvent} event */
  #isOnAxis({ offsetX, offsetY }) {
    const [layout, y] = [this.#layout, offsetY / this.#large];
    if (!layout || offsetX / this.#large >= LABELS) return false;
    return y >= layout.score - 4 && y <= layout.score + layout.scoreHeight + 4;
  }

  /** @param {PointerEvent} event  of a pointer that is down */
  #drag({ offsetX, offsetY }) {
    if (this.#threshold && this.#layout) {
      const { score, scoreHeight } = this.#layout;
      const up = 1 - (offsetY / this.#large - score) / scoreHeight;
      return this.onthreshold(LEAST + Math.max(0, Math.min(1, up)) * (MOST - LEAST));
    }
    const position = this.#at(offsetX);
    if (position !== null) this.onseek(position);
  }

  draw() {
    const canvas = this.#canvas;
    const ratio = (window.devicePixelRatio || 1) * this.#large;
    const [width, height] = [canvas.clientWidth / this.#large, canvas.clientHeight / this.#large];
    const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
    const c = pen(canvas);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    this.#layout = this.#held && layoutOf(c, this.#held, width, height);
    const layout = this.#layout;
    if (!this.#held || !layout) return;
    this.#film(layout);
    this.#labels(layout);
    this.#presence(layout);
    this.#scores(layout);
    this.#steadiness(layout);
    if (this.#held.draft) this.#done(layout, this.#held.draft);
    this.#suspects(layout);
    this.#seconds(layout);
    this.#playhead(layout);
  }

  /**
   * Small pictures along the time, each of the frame at its middle.
   * @param {Layout} layout
   */
  #film({ c, held, width, film }) {
    const [whole, tall] = [width - LABELS - PAD, film - 4];
    const { frames, info, timeline } = held;
    const count = Math.max(1, Math.floor(whole / ((tall * info.width) / info.height)));
    const wide = whole / count;
    const ratio = Math.ceil((window.devicePixelRatio || 1) * this.#large);
    for (let n = 0; n < count; n++) {
      const picture = frames.thumb(Math.floor(((n + 0.5) / count) * timeline.length), tall * ratio);
      const x = LABELS + n * wide;
      c.fillStyle = this.#colour("--band");
      c.fillRect(x, 0, wide - 1, tall);
      if (!picture) continue;
      const shown = Math.min(picture.width, ((wide - 1) / tall) * picture.height);
      c.drawImage(picture, (picture.width - shown) / 2, 0, shown, picture.height, x, 0, wide - 1, tall);
    }
  }

  /** @param {Layout} layout */
  #labels({ c, presence, score, scoreHeight, steady }) {
    c.font = FONT;
    c.textBaseline = "middle";
    c.fillStyle = this.#colour("--soft");
    c.fillText("Presence", 14, presence + 5);
    c.fillText("Score", 14, score + scoreHeight / 2);
    c.fillText("Steady", 14, steady + 4);
  }

  /**
   * A quiet track, and a bar for each stretch in which the object is present.
   * @param {Layout} layout
   */
  #presence({ c, held, x, cell, wide, presence }) {
    const { present, length } = held.timeline;
    c.fillStyle = this.#colour("--band");
    round(c, x(0), presence, length * cell, 10, 5);
    c.fillStyle = this.#colour("--mask");
    for (let i = 0, begun = -1; i <= length; i++) {
      const here = i < length && present[i];
      if (here && begun < 0) begun = i;
      if (here || begun < 0) continue;
      round(c, x(begun), presence, (i - begun) * cell - (cell - wide), 10, 5);
      begun = -1;
    }
  }

  /**
   * One bar a frame, with an axis; scores below the threshold in the colour of doubt.
   * @param {Layout} layout
   */
  #scores({ c, held, x, cell, wide, score, scoreHeight }) {
    const { present, scores, lowScore, length } = held.timeline;
    const share = (/** @type {number} */ value) => Math.min(1, (value - LEAST) / (MOST - LEAST));
    const [calm, doubt] = [this.#colour("--score"), this.#colour("--refine")];
    c.fillStyle = this.#colour("--band");
    c.fillRect(x(0), score + scoreHeight, length * cell, 1);
    scores?.forEach((value, i) => {
      if (!present[i]) return;
      const tall = Math.max(0.08, share(value)) * scoreHeight;
      c.fillStyle = value < lowScore ? doubt : calm;
      c.fillRect(x(i), score + scoreHeight - tall, Math.max(1, wide), tall);
    });
    c.fillStyle = this.#colour("--soft");
    c.textAlign = "right";
    c.font = FINE;
    if (scoreHeight >= ROOM) c.fillText(MOST.toFixed(1), LABELS - 11, score + 3);
    if (scoreHeight >= ROOM) c.fillText(LEAST.toFixed(1), LABELS - 11, score + scoreHeight - 3);
    c.font = FONT;
    c.textAlign = "start";
    c.fillRect(LABELS - 4, score, 1, scoreHeight + 1);
    for (const value of [LEAST, MOST]) c.fillRect(LABELS - 7, score + scoreHeight - share(value) * scoreHeight, 3, 1);
    this.#line(score + scoreHeight - share(lowScore) * scoreHeight, doubt, c, x(0), length * cell);
  }

  /**
   * The threshold of suspect frames, with a handle on the axis.
   * @type {(y: number, fill: string, c: CanvasRenderingContext2D, left: number, wide: number) => void}
   */
  #line(y, fill, c, left, wide) {
    c.fillStyle = fill;
    for (let at = 0; at < wide; at += 6) c.fillRect(left + at, y, Math.min(3, wide - at), 1);
    c.beginPath();
    c.moveTo(LABELS - 10, y - 4);
    c.lineTo(LABELS - 3, y + 0.5);
    c.lineTo(LABELS - 10, y + 5);
    c.fill();
  }

  /**
   * IoU with the mask before: more of the colour of doubt as it falls from 1 to 0.5.
   * @param {Layout} layout
   */
  #steadiness({ c, held, x, wide, steady }) {
    held.timeline.steadiness().forEach((value, i) => {
      c.fillStyle = this.#colour("--band");
      c.fillRect(x(i), steady, Math.max(1, wide), 8);
      const fall = Math.min(1, (1 - value) / 0.5);
      if (fall < 0.1) return;
      c.globalAlpha = fall;
      c.fillStyle = this.#colour("--refine");
      c.fillRect(x(i), steady, Math.max(1, wide), 8);
      c.globalAlpha = 1;
    });
  }

  /**
   * What a person did: locked frames, prompts, frames drawn by hand; and how far a propagation has come.
   * @param {Layout} layout
   * @param {NonNullable<HeldTicket["draft"]>} draft
   */
  #done({ c, held, x, cell, presence }, draft) {
    const middle = presence + 5;
    draft.frames.forEach((frame, i) => {
      const at = x(i) + cell / 2;
      if (draft.locked.has(frame)) {
        c.fillStyle = this.#colour("--text");
        c.fillRect(at - 4, middle - 4, 8, 8);
        c.fillStyle = this.#colour("--panel");
        c.fillRect(at - 1, middle - 1, 2, 3);
      } else if (draft.edited.has(frame)) {
        disc(c, this.#colour("--panel"), at, middle, 5.5);
        disc(c, this.#colour(draft.prompts.has(frame) ? "--accept" : "--text"), at, middle, 4);
      }
      if (held.progress?.frames.has(frame)) {
        c.fillStyle = this.#colour("--accept");
        c.fillRect(x(i), presence + 11, Math.max(1, cell), 3);
      }
    });
    if (held.absentFrom === null) return;
    const [from, to] = [draft.frames.indexOf(held.absentFrom), this.#position].sort((a, b) => a - b);
    c.fillStyle = this.#colour("--reject");
    c.fillRect(x(from), presence - 3, (to - from + 1) * cell, 3);
  }

  /**
   * A mark above each suspect stretch: the keys [ and ] go from one to the next.
   * @param {Layout} layout
   */
  #suspects({ c, held, x, cell, ticks }) {
    c.fillStyle = this.#colour("--refine");
    for (const { position } of held.timeline.suspects) {
      const middle = x(position) + cell / 2;
      c.beginPath();
      c.moveTo(middle - 4, ticks + 2);
      c.lineTo(middle + 4, ticks + 2);
      c.lineTo(middle, ticks + 9);
      c.fill();
    }
  }

  /** @param {Layout} layout */
  #seconds({ c, held, x, cell, width, axis }) {
    const { info, timeline } = held;
    c.fillStyle = this.#colour("--soft");
    c.textAlign = "center";
    const seconds = timeline.frames[timeline.length - 1] / info.fps;
    const step = [1, 2, 5, 10, 20, 30, 60, 120].find((s) => (seconds / s) * 44 < width - LABELS) ?? 300;
    const perFrame = timeline.length > 1 ? timeline.frames[1] - timeline.frames[0] : 1;
    for (let s = 0; s <= seconds; s += step) {
      c.fillText(`${s} s`, x((s * info.fps) / perFrame) + cell / 2, axis + 6);
    }
    c.textAlign = "start";
  }

  /** @param {Layout} layout */
  #playhead({ c, x, cell, ticks, axis }) {
    if (this.#hover !== null) {
      c.fillStyle = this.#colour("--hover");
      c.fillRect(x(this.#hover), ticks, cell, axis - ticks - 4);
    }
    const head = x(this.#position) + cell / 2;
    c.fillStyle = this.#colour("--text");
    c.fillRect(head - 1, ticks + 4, 2, axis - ticks - 8);
    round(c, head - 5, ticks, 10, 10, 5);
  }
}

/**
 * @param {CanvasRenderingContext2D} c
 * @param {HeldTicket} held
 * @param {number} width
 * @param {number} height
 * @returns {Layout}
 */
function layoutOf(c, held, width, height) {
  const low = height < 130; // on a low screen everything stands closer
  const film = low ? 24 : 34;
  const [presence, score, gap] = low ? [film + 13, film + 28, 4] : [film + 20, film + 38, 6];
  const steady = height - (low ? 25 : 31);
  const cell = (width - LABELS - PAD) / held.timeline.length;
  return {
    c,
    held,
    cell,
    wide: cell - (cell > 5 ? 1 : 0),
    x: (position) => LABELS + position * cell,
    width,
    film,
    ticks: film + (low ? 0 : 4),
    presence,
    score,
    scoreHeight: steady - score - gap,
    steady,
    axis: height - 15,
  };
}

/** @type {(c: CanvasRenderingContext2D, fill: string, x: number, y: number, radius: number) => void} */
function disc(c, fill, x, y, radius) {
  c.fillStyle = fill;
  c.beginPath();
  c.arc(x, y, radius, 0, 7);
  c.fill();
}

/** @type {(c: CanvasRenderingContext2D, x: number, y: number, width: number, height: number, radius: number) => void} */
function round(c, x, y, width, height, radius) {
  c.beginPath();
  c.roundRect(x, y, Math.max(width, 1), height, Math.min(radius, Math.max(width, 1) / 2));
  c.fill();
}
