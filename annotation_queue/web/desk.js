// Correcting a masklet: the tools over the video, the prompts that stand on a frame, and the operations that they make.

import { newId } from "./api.js";
import * as keys from "./keys.js";
import { encode, Mask } from "./rle.js";

export const TOOLS = [
  { tool: "click", title: "Click", needs: "click" },
  { tool: "box", title: "Box", needs: "box" },
  { tool: "brush", title: "Brush", needs: "stroke" },
  { tool: "eraser", title: "Eraser", needs: "stroke" },
  { tool: "polygon", title: "Polygon", needs: "stroke" },
];

const ANSWERED = ["prompt", "propagate"]; // by the model
const POSITIVE = "#3ddc84";
const NEGATIVE = "#ff5470";

export class Desk {
  // marks: the canvas above the picture, at the screen's own resolution.
  constructor({ player, marks, stage, onact, onchange, onnotice }) {
    Object.assign(this, { player, marks, stage, onact, onchange, onnotice });
    // onact(work, operation, answered): an operation was made; answered: by the model.
    this.work = null;
    this.tool = "click";
    this.radius = 12; // px of the screen
    this.pointer = null; // where it is, px of the stage
    this.drag = null;
    this.corners = []; // of a polygon, px of the video
    this.cornersOn = null; // the frame that they are on
    this.absentFrom = null;
    new ResizeObserver(() => this.paint()).observe(marks);
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    stage.addEventListener("pointerup", (event) => this.up(event));
    stage.addEventListener("pointercancel", () => this.abandon());
    stage.addEventListener("dblclick", (event) => this.tool === "polygon" && this.active && (event.preventDefault(), this.close()));
    stage.addEventListener("contextmenu", (event) => this.active && event.preventDefault());
    stage.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.paint();
    });
  }

  get active() {
    return this.work !== null;
  }

  get frame() {
    return this.work.draft.frames[this.player.position];
  }

  show(work) {
    // A ticket whose masklet is corrected, or null.
    this.abandon();
    this.work = work;
    this.absentFrom = null;
    if (work && !this.allows(this.tool)) this.tool = TOOLS.find(({ tool }) => this.allows(tool))?.tool ?? "click";
    this.paint();
  }

  allows(tool) {
    const { needs } = TOOLS.find((t) => t.tool === tool);
    return this.may(needs);
  }

  may(word) {
    // Whether the ticket's phase permits it, and there is a model where one is needed.
    const { prompts } = this.work.rules;
    return (!prompts || prompts.includes(word)) && (this.work.live || word === "stroke");
  }

  choose(tool) {
    if (!this.work || !this.allows(tool)) return this.onnotice(`Phase ${this.work?.ticket.phase} does not offer that here.`);
    this.abandon();
    this.tool = tool;
    this.onchange();
    this.paint();
  }

  abandon() {
    // Leave what is half drawn. True if there was something.
    const something = this.drag !== null || this.corners.length > 0 || this.absentFrom !== null;
    const { drag } = this;
    this.drag = null;
    this.corners = [];
    this.absentFrom = null;
    if (drag?.bits) this.player.preview(null);
    this.paint();
    return something;
  }

  // --- operations ----------------------------------------------------------------------------------------------------

  act(kind, frame_idx, payload = {}) {
    const operation = { operation_id: newId(), kind, frame_idx, payload, created_at: new Date().toISOString() };
    this.work.draft.add(operation);
    this.onact(this.work, operation, ANSWERED.includes(kind));
    this.onchange();
    return operation;
  }

  stop(kinds = ["propagate"]) {
    // End what the model is at; nothing of it stays. True if there was something.
    const running = this.work.draft.waiting().filter((o) => kinds.includes(o.kind));
    for (const { operation_id } of running) this.act("undo", null, { operation_id });
    this.work.cancel(running.map((o) => o.operation_id));
    this.work.progress = null;
    return running.length > 0;
  }

  stopAll() {
    return this.stop(ANSWERED);
  }

  locked() {
    if (!this.work.draft.locked.has(this.frame)) return false;
    this.onnotice(`This frame is locked. ${keys.hint("lock")} unlocks it.`);
    return true;
  }

  click(xy, positive) {
    if (this.locked()) return;
    this.stop();
    const before = this.work.draft.prompts.get(this.frame);
    if (!positive && !before && !this.masked()) return this.onnotice("Begin with a click on the object.");
    const payload = {
      points_xy: [...(before?.points_xy ?? []), xy.map((v) => Math.round(v * 10) / 10)],
      labels: [...(before?.labels ?? []), positive ? 1 : 0],
    };
    if (before?.box_xyxy) payload.box_xyxy = before.box_xyxy;
    this.act("prompt", this.frame, payload);
  }

  masked() {
    return (this.work.draft.masks.get(this.frame)?.area_px ?? 0) > 0;
  }

  propagate(direction) {
    if (!this.may("propagate")) return this.onnotice("In this phase every frame is masked by itself.");
    this.stop();
    if (!this.work.draft.masks.has(this.frame)) return this.onnotice("Mask this frame first: it is what is propagated.");
    this.act("propagate", this.frame, { direction });
  }

  lock() {
    // A propagation from elsewhere would still change the frame.
    if (this.work.draft.waiting().some((o) => o.kind === "propagate" && o.frame_idx !== this.frame)) this.stop();
    this.act("lock", this.frame, { on: !this.work.draft.locked.has(this.frame) });
  }

  absent() {
    // The first press marks where the object is gone, the second one until where.
    if (this.absentFrom === null) {
      this.absentFrom = this.frame;
      return this.onchange();
    }
    const [first, last] = [this.absentFrom, this.frame].sort((a, b) => a - b);
    this.absentFrom = null;
    this.stop();
    this.act("absent", null, { first, last });
  }

  clear() {
    // What was done here is forgotten; where nothing was, the frame is emptied to be drawn anew.
    const { draft } = this.work;
    if (draft.prompts.has(this.frame) || draft.edited.has(this.frame)) return this.act("clear", this.frame);
    if (!this.locked() && this.masked()) this.stroke(this.bits().fill(0));
  }

  undo() {
    if (this.abandon() || this.stop()) return this.onchange();
    const last = this.work.draft.done.at(-1);
    if (!last) return this.onnotice("There is nothing to undo.");
    this.act("undo", last.frame_idx, { operation_id: last.operation_id });
    this.work.cancel([last.operation_id]);
    this.goTo(last);
  }

  redo() {
    const last = this.work.draft.undone.at(-1);
    if (!last) return this.onnotice("There is nothing to redo.");
    this.act("redo", last.frame_idx, { operation_id: last.operation_id });
    if (this.work.draft.waiting().includes(last)) this.onact(this.work, last, true); // it was never answered
    this.goTo(last);
  }

  goTo({ frame_idx, payload }) {
    // Where an operation was: its effect should be seen.
    const position = this.work.draft.frames.indexOf(frame_idx ?? payload.first);
    if (position >= 0) this.player.seek(position);
  }

  promptFrame(direction) {
    // Go to the previous or next frame that somebody touched.
    const { draft } = this.work;
    const places = draft.frames.map((frame, i) => (draft.edited.has(frame) || draft.locked.has(frame) ? i : -1));
    const found = places.filter((i) => i >= 0 && (i - this.player.position) * direction > 0);
    if (found.length) this.player.seek(direction > 0 ? found[0] : found.at(-1));
  }

  // --- the pointer -----------------------------------------------------------------------------------------------------

  at(event) {
    // Pixels of the video, or null outside it.
    const [x, y] = this.player.toVideo(event.clientX, event.clientY);
    const { width, height } = this.work.info;
    return x < 0 || y < 0 || x > width || y > height ? null : [x, y];
  }

  clamp([x, y]) {
    const { width, height } = this.work.info;
    return [Math.max(0, Math.min(width, x)), Math.max(0, Math.min(height, y))];
  }

  down(event) {
    if (event.target.closest("button, input, .menu")) return;
    if (event.button === 1 || (event.button === 0 && this.player.panning)) {
      this.drag = { pan: [event.clientX, event.clientY] };
      this.stage.setPointerCapture(event.pointerId);
      return event.preventDefault();
    }
    const at = this.work && this.at(event);
    if (!at || this.player.shown !== this.player.position) return;
    this.player.play(false);
    const minus = event.button === 2 || event.altKey;
    if (this.tool === "click") this.click(at, !minus);
    else if (this.tool === "polygon") {
      if (event.detail < 2 && !this.moved(this.corners.length ? this.cornersOn : this.frame) && !this.locked()) {
        this.cornersOn = this.frame;
        this.corners.push(at);
      }
    } else if (!this.locked()) {
      this.stage.setPointerCapture(event.pointerId);
      const { frame } = this;
      this.drag = this.tool === "box"
        ? { frame, from: at, to: at }
        : { frame, last: at, bits: this.bits(), value: this.tool === "eraser" || minus ? 0 : 1 };
      if (this.drag.bits) this.stamp(at);
    }
    this.paint();
  }

  move(event) {
    if (this.drag?.pan) {
      this.player.pan(event.clientX - this.drag.pan[0], event.clientY - this.drag.pan[1]);
      this.drag.pan = [event.clientX, event.clientY];
    }
    if (!this.work) return;
    const box = this.stage.getBoundingClientRect();
    this.pointer = [event.clientX - box.left, event.clientY - box.top];
    if (this.drag && !this.drag.pan && this.moved(this.drag.frame)) return;
    this.stage.classList.toggle("low", this.pointer[1] > 0.7 * box.height); // what is written there makes room
    this.stage.classList.toggle("high", this.pointer[1] < 0.3 * box.height);
    if (this.drag && !this.drag.pan) {
      const at = this.clamp(this.player.toVideo(event.clientX, event.clientY));
      if (this.drag.from) this.drag.to = at;
      else this.stamp(at);
    }
    this.paint();
  }

  moved(frame) {
    // True if a frame that something is drawn on is no longer the one on screen: it is left, and lands nowhere.
    if (frame === this.frame) return false;
    this.abandon();
    this.onnotice(`What was half drawn on frame ${frame} is dropped: another frame came on screen.`);
    return true;
  }

  up() {
    const { drag } = this;
    if (!this.work || !drag || drag.pan) return (this.drag = null);
    if (this.moved(drag.frame)) return;
    this.drag = null;
    if (drag.bits) this.player.preview(null);
    if (this.locked()) return this.paint(); // meanwhile, by its key
    if (drag.bits) {
      this.stroke(drag.bits);
    } else if (Math.abs(drag.to[0] - drag.from[0]) > 3 && Math.abs(drag.to[1] - drag.from[1]) > 3) {
      const [xs, ys] = [0, 1].map((i) => [drag.from[i], drag.to[i]].sort((a, b) => a - b));
      this.stop();
      const box_xyxy = [xs[0], ys[0], xs[1], ys[1]].map((v) => Math.round(v * 10) / 10);
      this.act("prompt", this.frame, { points_xy: [], labels: [], box_xyxy });
    }
    this.paint();
  }

  bits() {
    // A copy of the frame's mask, to draw on.
    const { height, width } = this.work.info;
    const rle = this.work.draft.masks.get(this.frame)?.rle;
    return rle ? new Mask(rle, height, width).bits : new Uint8Array(height * width);
  }

  stroke(bits) {
    this.stop();
    const { height, width } = this.work.info;
    this.act("stroke", this.frame, { mask_rle: encode(bits, height, width) });
  }

  stamp(to) {
    // Discs along the way from the last point.
    const { height, width } = this.work.info;
    const { bits, last, value } = this.drag;
    const radius = Math.max(0.6, this.radius / this.player.pixelsPerPixel());
    const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - last[0], to[1] - last[1]) / (radius / 2)));
    for (let n = 0; n <= steps; n++) {
      const cx = last[0] + ((to[0] - last[0]) * n) / steps;
      const cy = last[1] + ((to[1] - last[1]) * n) / steps;
      for (let y = Math.max(0, Math.floor(cy - radius)); y < Math.min(height, cy + radius); y++) {
        const half = Math.sqrt(Math.max(0, radius ** 2 - (y + 0.5 - cy) ** 2));
        if (half === 0) continue;
        const [x0, x1] = [Math.max(0, Math.round(cx - half)), Math.min(width, Math.round(cx + half))];
        if (x1 > x0) bits.fill(value, y * width + x0, y * width + x1);
      }
    }
    this.drag.last = to;
    this.player.preview(bits);
  }

  close(minus = false) {
    // Fill the polygon into the mask.
    const { corners } = this;
    if (corners.length && this.moved(this.cornersOn)) return;
    this.corners = [];
    if (corners.length < 3 || this.locked()) return this.paint();
    const { height, width } = this.work.info;
    const c = new OffscreenCanvas(width, height).getContext("2d");
    c.beginPath();
    for (const [x, y] of corners) c.lineTo(x, y);
    c.fill();
    const filled = c.getImageData(0, 0, width, height).data;
    const bits = this.bits();
    for (let i = 0; i < bits.length; i++) if (filled[4 * i + 3] > 127) bits[i] = minus ? 0 : 1;
    this.stroke(bits);
    this.paint();
  }

  resize(by) {
    this.radius = Math.max(2, Math.min(120, this.radius * by));
    this.paint();
  }

  // --- marks -----------------------------------------------------------------------------------------------------------

  paint() {
    if (this.work && this.drag && !this.drag.pan && this.moved(this.drag.frame)) return; // which painted
    const { marks, work } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [marks.clientWidth, marks.clientHeight];
    if (marks.width !== Math.round(width * ratio)) marks.width = Math.round(width * ratio);
    if (marks.height !== Math.round(height * ratio)) marks.height = Math.round(height * ratio);
    const c = marks.getContext("2d");
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    this.stage.dataset.tool = work ? this.tool : "";
    if (!work || this.player.hidden) return;
    const screen = (xy) => this.player.toStage(xy);
    const prompt = work.draft.prompts.get(this.frame);
    if (prompt?.box_xyxy) box(c, screen(prompt.box_xyxy.slice(0, 2)), screen(prompt.box_xyxy.slice(2)), POSITIVE);
    prompt?.points_xy?.forEach((xy, i) => dot(c, screen(xy), prompt.labels[i]));
    if (this.drag?.from) box(c, screen(this.drag.from), screen(this.drag.to), "#fff");
    if (this.corners.length) {
      c.beginPath();
      for (const xy of this.corners) c.lineTo(...screen(xy));
      if (this.pointer) c.lineTo(...this.pointer);
      c.strokeStyle = "#fff";
      c.lineWidth = 1.5;
      c.stroke();
      for (const xy of this.corners) disc(c, screen(xy), 3, "#fff");
    }
    if (this.pointer && (this.tool === "brush" || this.tool === "eraser")) {
      c.beginPath();
      c.arc(...this.pointer, this.radius, 0, 7);
      c.lineWidth = 3;
      c.strokeStyle = "rgb(0 0 0 / 0.5)";
      c.stroke();
      c.lineWidth = 1.5;
      c.strokeStyle = this.tool === "brush" ? "#fff" : NEGATIVE;
      c.stroke();
    }
  }
}

function disc(c, at, radius, colour) {
  c.beginPath();
  c.arc(...at, radius, 0, 7);
  c.fillStyle = colour;
  c.fill();
}

function dot(c, [x, y], label) {
  // Colour and sign: a plus or a minus, for eyes that see no colours.
  disc(c, [x, y], 9, "rgb(0 0 0 / 0.55)");
  disc(c, [x, y], 7.5, label ? POSITIVE : NEGATIVE);
  c.fillStyle = "#101014";
  c.fillRect(x - 4, y - 1, 8, 2);
  if (label) c.fillRect(x - 1, y - 4, 2, 8);
}

function box(c, [x0, y0], [x1, y1], colour) {
  c.lineWidth = 3.5;
  c.strokeStyle = "rgb(0 0 0 / 0.5)";
  c.strokeRect(x0, y0, x1 - x0, y1 - y0);
  c.lineWidth = 1.75;
  c.strokeStyle = colour;
  c.strokeRect(x0, y0, x1 - x0, y1 - y0);
}
