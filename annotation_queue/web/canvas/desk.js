// Correcting a masklet: the tools above the video, and the operations that they make.

/** @import { DeskListeners, DeskScreen, Drag, Operation, Payload, Point } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
/** @import { Tool } from "./tools.js" */
import { newId } from "../shared/api.js";
import { polygon, stroke } from "./brush.js";
import { large } from "../shared/dom.js";
import * as keys from "../shared/keys.js";
import { clearMarks, drawMarks } from "./marks.js";
import { encode, Mask } from "../shared/rle.js";
import { Touches } from "./touch.js";
import { bounds, boxBetween, tenth, TOOLS } from "./tools.js";

/** Why nothing is changed on a frame between two annotated ones. */
export const whyNoMask = () =>
  `Only every fourth frame has a mask, and this one has none. ${keys.hint("back")} and ${keys.hint("on")} go to those that do.`;

export class Desk {
  /** @type {HeldTicket | null} */ #held = null;
  /** @type {Tool} */ tool = "click";
  radius = 12; // of the brush, px of the page
  /** @type {Point | null} */ #pointer = null; // px of the stage
  /** @type {Drag | null} */ #drag = null;
  /** @type {Point[]} */ #corners = []; // of a polygon, px of the video
  /** @type {number | null} */ #cornersOn = null; // the frame that they are on
  /** @type {number | null} */ #absentFrom = null; // where the object is gone from, until its end is marked
  /** @type {{at: Point, event: PointerEvent} | null} */ #tap = null; // of one finger, until it leaves the screen
  #touches;
  /** @type {number | null} */ #from = null; // whose mask is propagated, until the last frame is marked
  reach = 0; // how many frames a propagation goes at most; 0: to the end
  #player;
  #marks;
  #stage;
  #on;

  /** @param {DeskScreen & DeskListeners} on  the screen, and who hears of changes */
  constructor({ player, marks, stage, ...on }) {
    this.#player = player;
    this.#touches = new Touches(player);
    this.#marks = marks;
    this.#stage = stage;
    this.#on = on;
    new ResizeObserver(() => this.paint()).observe(marks);
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", (event) => this.#up(event));
    stage.addEventListener("pointercancel", (event) => {
      this.#touches.up(event);
      this.#tap = null;
      this.abandon();
    });
    stage.addEventListener("dblclick", (event) => {
      if (this.tool !== "polygon" || !this.active) return;
      event.preventDefault();
      this.close();
    });
    stage.addEventListener("contextmenu", (event) => this.active && event.preventDefault());
    stage.addEventListener("pointerleave", () => {
      this.#pointer = null;
      this.paint();
    });
  }

  /** Whether a masklet is being corrected. */
  get active() {
    return this.#held !== null;
  }

  /** The ticket whose masklet is being corrected, or null. */
  get held() {
    return this.#held;
  }

  /** How many corners a polygon has that is being drawn; 0 without one. */
  get corners() {
    return this.#corners.length;
  }

  get absentFrom() {
    return this.#absentFrom;
  }

  get from() {
    return this.#from;
  }

  // The ticket and its draft, for what is possible only while a masklet is being corrected.
  get #draft() {
    const draft = this.#held?.draft;
    if (!this.#held || !draft) throw new Error("no masklet is being corrected");
    return { held: this.#held, draft };
  }

  /** The frame_idx on screen. */
  get frame() {
    return this.#draft.draft.frames[this.#player.position];
  }

  /** @param {HeldTicket | null} held  whose masklet is corrected from now on */
  show(held) {
    this.abandon();
    this.#held = held;
    if (held && !this.allows(this.tool)) this.tool = TOOLS.find(({ tool }) => this.allows(tool))?.tool ?? "click";
    this.paint();
  }

  /** @param {Tool} tool */
  allows(tool) {
    return TOOLS.some((each) => each.tool === tool && this.may(each.needs));
  }

  /**
   * Whether the ticket's phase permits this, and a model is there if it needs one.
   * @param {string} word  "click", "box", "stroke" or "propagate"
   */
  may(word) {
    const { held } = this.#draft;
    const { prompts } = held.rules;
    return (!prompts || prompts.includes(word)) && (held.live || word === "stroke");
  }

  /** @param {Tool} tool */
  choose(tool) {
    if (!this.#held || !this.allows(tool)) {
      return this.#on.onnotice(`Phase ${this.#held?.ticket.phase} does not offer this tool.`);
    }
    this.abandon();
    this.tool = tool;
    this.#on.onchange();
    this.paint();
  }

  /** Drop what is half drawn. True if there was something. */
  abandon() {
    const something = this.#drag || this.#corners.length > 0 || this.#absentFrom !== null || this.#from !== null;
    const drag = this.#drag;
    this.#drag = null;
    this.#corners = [];
    this.#absentFrom = this.#from = null;
    if (drag?.kind === "stroke") this.#player.preview(null);
    this.paint();
    return Boolean(something);
  }

  // --- operations ----------------------------------------------------------------------------------------------------

  /**
   * @param {string} kind
   * @param {number | null} frame_idx
   * @param {Payload} payload
   */
  #act(kind, frame_idx, payload = {}) {
    const { held, draft } = this.#draft;
    /** @type {Operation} */
    const operation = { operation_id: newId(), kind, frame_idx, payload, created_at: new Date().toISOString() };
    draft.add(operation);
    this.#on.onact(held, operation);
    this.#on.onchange();
  }

  /**
   * End a propagation that is under way. What has been computed of it stays. True if there was one.
   * @param {{spare?: number}} [spare]  a frame that it does not change, although its mask may be on its way
   */
  stop(spare = {}) {
    const { held, draft } = this.#draft;
    const running = draft.waiting().filter(({ kind }) => kind === "propagate");
    held.cancel(running.map(({ operation_id }) => operation_id));
    for (const { operation_id } of running) {
      const last = draft.versions.get(operation_id)?.frames.at(-1)?.frame_idx ?? null;
      this.#act("stop", null, { operation_id, last, ...spare });
    }
    held.progress = null;
    return running.length > 0;
  }

  /** End all that the model is working on; a prompt that it has not answered is undone. True if there was something. */
  stopAll() {
    const stopped = this.stop();
    const { held, draft } = this.#draft;
    const prompts = draft.waiting();
    for (const { operation_id } of prompts) this.#act("undo", null, { operation_id });
    held.cancel(prompts.map(({ operation_id }) => operation_id));
    return stopped || prompts.length > 0;
  }

  // Whether the frame on screen is locked, which is then said.
  #isLocked() {
    if (!this.#draft.draft.locked.has(this.frame)) return false;
    this.#on.onnotice(`This frame is locked. ${keys.hint("lock")} unlocks it.`);
    return true;
  }

  /**
   * @param {Point} xy
   * @param {boolean} positive
   */
  #click(xy, positive) {
    if (this.#isLocked()) return;
    const before = this.#draft.draft.prompts.get(this.frame);
    if (!positive && !before && !this.masked()) return this.#on.onnotice("Begin with a click on the object.");
    this.stop();
    /** @type {Payload} */
    const payload = {
      points_xy: [...(before?.points_xy ?? []), [tenth(xy[0]), tenth(xy[1])]],
      labels: [...(before?.labels ?? []), positive ? 1 : 0],
    };
    if (before?.box_xyxy) payload.box_xyxy = before.box_xyxy;
    this.#act("prompt", this.frame, payload);
  }

  /** Whether the frame on screen has a mask that is not empty. */
  masked() {
    return (this.#draft.draft.masks.get(this.frame)?.area_px ?? 0) > 0;
  }

  /** @param {"forward" | "backward" | "both"} direction */
  propagate(direction) {
    if (!this.#isSource()) return;
    this.stop();
    const payload = { direction, ...bounds(direction, this.#draft.draft.frames, this.#player.position, this.reach) };
    this.#act("propagate", this.frame, payload);
  }

  /** The first call marks the frame whose mask is propagated, the second one the last frame that it goes to. */
  stretch() {
    const [from, to] = [this.#from, this.frame];
    if (from === null) {
      if (this.#isSource()) this.#from = to;
      return this.#on.onchange();
    }
    this.#from = null;
    if (from === to) return this.#on.onchange();
    this.stop();
    this.#act("propagate", from, { direction: to > from ? "forward" : "backward", last: to });
  }

  // Whether the mask on screen can be propagated; if not, the person reads why.
  #isSource() {
    if (!this.may("propagate")) this.#on.onnotice("No propagation in this phase: every frame is masked by itself.");
    else if (!this.#draft.draft.masks.has(this.frame)) {
      this.#on.onnotice("Mask this frame first: its mask is what is propagated.");
    } else return true;
    return false;
  }

  lock() {
    const { draft } = this.#draft;
    const running = draft.waiting().find(({ kind }) => kind === "propagate");
    const came = (running && draft.versions.get(running.operation_id)?.frames) ?? [];
    // a propagation would still change a frame that it has not reached
    const changes = running?.frame_idx !== this.frame && !came.some(({ frame_idx }) => frame_idx === this.frame);
    if (changes) this.stop({ spare: this.frame });
    this.#act("lock", this.frame, { on: !draft.locked.has(this.frame) });
  }

  /** The first call marks the frame from which the object is gone, the second one the last frame without it. */
  absent() {
    if (this.#absentFrom === null) {
      this.#absentFrom = this.frame;
      return this.#on.onchange();
    }
    const [first, last] = [this.#absentFrom, this.frame].sort((a, b) => a - b);
    this.#absentFrom = null;
    this.stop();
    this.#act("absent", null, { first, last });
  }

  /** Take all clicks and edits of this frame back, its mask too. If there are none, empty the mask. */
  clear() {
    const { draft } = this.#draft;
    if (draft.prompts.has(this.frame) || draft.edited.has(this.frame)) return this.#act("clear", this.frame);
    if (!this.#isLocked() && this.masked()) this.#stroke(this.#bits().fill(0));
  }

  undo() {
    if (this.#corners.length) {
      this.#corners.pop();
      this.paint();
      return this.#on.onchange();
    }
    if (this.abandon()) return this.#on.onchange();
    const { held, draft } = this.#draft;
    const last = draft.done.at(-1);
    if (!last) return this.#on.onnotice("There is nothing to undo.");
    this.#act("undo", last.frame_idx, { operation_id: last.operation_id });
    held.cancel([last.operation_id]);
    held.progress = null;
    this.#goTo(last);
  }

  redo() {
    const { held, draft } = this.#draft;
    const last = draft.undone.at(-1);
    if (!last) return this.#on.onnotice("There is nothing to redo.");
    this.#act("redo", last.frame_idx, { operation_id: last.operation_id });
    if (draft.waiting().includes(last)) this.#on.onact(held, last); // the model has not answered it
    this.#goTo(last);
  }

  /** @param {Operation} operation  whose effect should be seen */
  #goTo({ frame_idx, payload }) {
    const position = this.#draft.draft.frames.indexOf(frame_idx ?? payload.first ?? -1);
    if (position >= 0) this.#player.seek(position);
  }

  // --- the pointer -----------------------------------------------------------------------------------------------------

  /** @param {PointerEvent} event */
  #down(event) {
    const player = this.#player;
    if (this.#touches.down(event)) return this.#pinch();
    if (event.button > 2) return; // the mouse's buttons for back and forward
    if (event.target instanceof Element && event.target.closest("button, input, .menu")) return;
    if (event.button === 1 || (event.button === 0 && player.panning)) {
      this.#drag = { kind: "pan", at: [event.clientX, event.clientY] };
      this.#stage.setPointerCapture(event.pointerId);
      return event.preventDefault();
    }
    if (!this.#held || !player.isShown) return;
    const [x, y] = player.toVideo(event.clientX, event.clientY);
    const { width, height } = this.#held.info;
    if (x < 0 || y < 0 || x > width || y > height) return;
    player.play(false);
    if (player.between) return this.#on.onnotice(whyNoMask());
    if (event.pointerType === "touch" && (this.tool === "click" || this.tool === "polygon")) {
      this.#tap = { at: [x, y], event }; // a click when the finger leaves, unless another finger comes
      return;
    }
    this.#begin([x, y], event);
    this.paint();
  }

  // Two fingers move the picture: what the first one began is dropped, but not the corners of a polygon.
  #pinch() {
    this.#tap = null;
    if (this.#drag?.kind === "stroke") this.#player.preview(null);
    this.#drag = null;
    this.paint();
  }

  /**
   * Begin what the tool does.
   * @param {Point} at  px of the video
   * @param {PointerEvent} event
   */
  #begin(at, event) {
    const { frame } = this;
    const minus = event.button === 2 || event.altKey;
    if (this.tool === "click") return this.#click(at, !minus);
    if (this.tool === "polygon") {
      if (event.detail >= 2 || this.#hasLeft(this.#corners.length ? this.#cornersOn : frame) || this.#isLocked()) return;
      this.#cornersOn = frame;
      this.#corners.push(at);
      return this.#on.onchange();
    }
    if (this.#isLocked()) return;
    this.#stage.setPointerCapture(event.pointerId);
    if (this.tool === "box") {
      this.#drag = { kind: "box", frame, from: at, to: at };
    } else {
      const value = this.tool === "eraser" || minus ? 0 : 1;
      this.#draw((this.#drag = { kind: "stroke", frame, last: at, bits: this.#bits(), value }), at);
    }
  }

  /** @param {PointerEvent} event */
  #move(event) {
    if (this.#touches.move(event)) return this.paint();
    const drag = this.#drag;
    if (drag?.kind === "pan") {
      this.#player.pan(event.clientX - drag.at[0], event.clientY - drag.at[1]);
      drag.at = [event.clientX, event.clientY];
    }
    if (!this.#held) return;
    const box = this.#stage.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    this.#pointer = [x, y];
    if (drag && drag.kind !== "pan" && this.#hasLeft(drag.frame)) return;
    this.#stage.classList.toggle("low", y > 0.7 * box.height); // texts there make room for the pointer
    this.#stage.classList.toggle("high", y < 0.3 * box.height);
    if (drag && drag.kind !== "pan") {
      const { width, height } = this.#held.info;
      const [vx, vy] = this.#player.toVideo(event.clientX, event.clientY);
      /** @type {Point} */
      const at = [Math.max(0, Math.min(width, vx)), Math.max(0, Math.min(height, vy))];
      if (drag.kind === "box") drag.to = at;
      else this.#draw(drag, at);
    }
    this.paint();
  }

  /**
   * Whether another frame is on screen than the one that is drawn on. What is half drawn is dropped then.
   * @param {number | null} frame
   */
  #hasLeft(frame) {
    if (frame === this.frame) return false;
    this.abandon();
    this.#on.onnotice(`What was half drawn on frame ${frame} is dropped: another frame is on screen now.`);
    return true;
  }

  /** @param {PointerEvent} event */
  #up(event) {
    this.#touches.up(event);
    const [drag, tap] = [this.#drag, this.#tap];
    this.#tap = null;
    if (this.#held && tap?.event.pointerId === event.pointerId) {
      this.#begin(tap.at, tap.event);
      return this.paint();
    }
    if (!this.#held || !drag || drag.kind === "pan") {
      this.#drag = null;
      return;
    }
    if (this.#hasLeft(drag.frame)) return;
    this.#drag = null;
    if (drag.kind === "stroke") this.#player.preview(null);
    if (this.#isLocked()) return this.paint(); // it was locked with its key meanwhile
    if (drag.kind === "stroke") {
      this.#stroke(drag.bits);
    } else {
      const box_xyxy = boxBetween(drag.from, drag.to);
      if (box_xyxy) {
        this.stop();
        this.#act("prompt", this.frame, { points_xy: [], labels: [], box_xyxy });
      }
    }
    this.paint();
  }

  // A copy of the frame's mask, to draw on.
  #bits() {
    const { held, draft } = this.#draft;
    const { height, width } = held.info;
    const rle = draft.masks.get(this.frame)?.rle;
    return rle ? new Mask(rle, height, width).bits : new Uint8Array(height * width);
  }

  /** @param {Uint8Array} bits  the frame's new mask */
  #stroke(bits) {
    this.stop();
    const { height, width } = this.#draft.held.info;
    this.#act("stroke", this.frame, { mask_rle: encode(bits, height, width) });
  }

  /**
   * Draw from the last point to this one.
   * @param {Extract<Drag, {kind: "stroke"}>} drag
   * @param {Point} to
   */
  #draw(drag, to) {
    const radius = Math.max(0.6, this.radius / this.#player.pixelsPerPixel());
    stroke(drag.bits, this.#draft.held.info, drag.last, to, radius, drag.value);
    drag.last = to;
    this.#player.preview(drag.bits);
  }

  /** @param {boolean} minus  cut the polygon out of the mask instead of adding it */
  close(minus = false) {
    const corners = this.#corners;
    if (corners.length && this.#hasLeft(this.#cornersOn)) return;
    if (corners.length < 3) return this.#on.onnotice("A polygon has at least three corners. Esc drops this one.");
    if (this.#isLocked()) return;
    this.#corners = [];
    const bits = this.#bits();
    polygon(bits, this.#draft.held.info, corners, minus ? 0 : 1);
    this.#stroke(bits);
    this.paint();
  }

  // --- marks -----------------------------------------------------------------------------------------------------------

  paint() {
    const [held, drag] = [this.#held, this.#drag];
    if (held && drag && drag.kind !== "pan" && this.#hasLeft(drag.frame)) return; // it has painted
    const c = clearMarks(this.#marks);
    this.#stage.dataset.tool = held ? this.tool : "";
    if (!held?.draft || this.#player.hidden) return;
    const marks = {
      prompt: held.draft.prompts.get(this.frame),
      box: drag?.kind === "box" ? /** @type {[Point, Point]} */ ([drag.from, drag.to]) : null,
      corners: this.#corners,
      pointer: this.#pointer,
      brush: this.tool === "brush" || this.tool === "eraser" ? this.radius : 0,
      erases: this.tool === "eraser",
    };
    drawMarks(c, marks, (xy) => this.#player.toStage(xy), large());
  }
}
