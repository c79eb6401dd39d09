// The strip under the video: presence, scores, suspect frames and where we are. Click or drag to seek.

import { LOW_SCORE } from "./masklet.js";

const LABELS = 74; // px, left of the lanes
const PAD = 14; // px, right of them

export class Strip {
  constructor(canvas, colour) {
    this.canvas = canvas;
    this.colour = colour; // name of a custom property → what canvas understands
    this.work = null;
    this.position = 0;
    this.hover = null;
    this.onseek = () => {};
    this.large = 1; // how much everything grows on a large screen; all below is in units of it
    new ResizeObserver(() => {
      this.large = Number(getComputedStyle(canvas).getPropertyValue("--large")) || 1;
      this.draw();
    }).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.seekTo(event.offsetX);
    });
    canvas.addEventListener("pointermove", (event) => {
      this.hover = this.at(event.offsetX);
      if (event.buttons & 1) this.seekTo(event.offsetX);
      this.draw();
    });
    canvas.addEventListener("pointerleave", () => {
      this.hover = null;
      this.draw();
    });
  }

  show(work) {
    this.work = work;
    this.position = 0;
    if (work) {
      work.frames.onthumb = () => {
        if (this.asked || this.work !== work) return;
        this.asked = true; // many come at once: one drawing shows them all
        requestAnimationFrame(() => {
          this.asked = false;
          this.draw();
        });
      };
    }
    this.draw();
  }

  move(position) {
    this.position = position;
    this.draw();
  }

  at(x) {
    if (!this.work) return null;
    const { length } = this.work.timeline;
    const cell = (this.canvas.clientWidth / this.large - LABELS - PAD) / length;
    return Math.max(0, Math.min(length - 1, Math.floor((x / this.large - LABELS) / cell)));
  }

  seekTo(x) {
    const position = this.at(x);
    if (position !== null) this.onseek(position);
  }

  draw() {
    const { canvas } = this;
    const ratio = (window.devicePixelRatio || 1) * this.large;
    const [width, height] = [canvas.clientWidth / this.large, canvas.clientHeight / this.large];
    const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
    const c = canvas.getContext("2d");
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    if (!this.work) return;
    const { timeline, info } = this.work;
    const cell = (width - LABELS - PAD) / timeline.length;
    const x = (position) => LABELS + position * cell;
    const gap = cell > 5 ? 1 : 0;
    const low = height < 130; // on a low screen everything stands closer
    const film = low ? 24 : 34; // px, the strip of small pictures
    const [presence, score, scoreGap] = low ? [film + 13, film + 28, 4] : [film + 20, film + 38, 6];
    const lanes = { ticks: film + (low ? 0 : 4), presence, score, steady: height - (low ? 25 : 31), axis: height - 15 };
    this.drawFilm(c, width - LABELS - PAD, film - 4);
    const scoreHeight = lanes.steady - lanes.score - scoreGap;

    c.font = "11px ui-sans-serif, system-ui, sans-serif";
    c.textBaseline = "middle";
    c.fillStyle = this.colour("--soft");
    c.fillText("Presence", 14, lanes.presence + 5);
    c.fillText("Score", 14, lanes.score + scoreHeight / 2);
    c.fillText("Steady", 14, lanes.steady + 4);

    // presence: a quiet track, and bars where the object is
    c.fillStyle = this.colour("--lane");
    round(c, x(0), lanes.presence, timeline.length * cell, 10, 5);
    c.fillStyle = this.colour("--mask");
    for (let i = 0; i < timeline.length; ) {
      if (!timeline.present[i]) {
        i++;
        continue;
      }
      let end = i;
      while (end < timeline.length && timeline.present[end]) end++;
      round(c, x(i), lanes.presence, (end - i) * cell - gap, 10, 5);
      i = end;
    }

    // score: one bar a frame from 0.5 to 1, the doubtful ones in the colour of doubt
    const [calm, doubt] = [this.colour("--score"), this.colour("--refine")];
    c.fillStyle = this.colour("--lane");
    c.fillRect(x(0), lanes.score + scoreHeight, timeline.length * cell, 1);
    if (timeline.scores) {
      for (let i = 0; i < timeline.length; i++) {
        if (!timeline.present[i]) continue;
        const tall = Math.max(0.08, Math.min(1, (timeline.scores[i] - 0.5) / 0.5)) * scoreHeight;
        c.fillStyle = timeline.scores[i] < LOW_SCORE ? doubt : calm;
        c.fillRect(x(i), lanes.score + scoreHeight - tall, Math.max(1, cell - gap), tall);
      }
    }

    // steadiness: IoU with the mask before, from calm to doubt as it falls from 1 to 0.5
    const steady = timeline.steadiness();
    for (let i = 0; i < timeline.length; i++) {
      c.fillStyle = this.colour("--lane");
      c.fillRect(x(i), lanes.steady, Math.max(1, cell - gap), 8);
      const fall = Math.min(1, (1 - steady[i]) / 0.5);
      if (fall < 0.1) continue;
      c.globalAlpha = fall;
      c.fillStyle = doubt;
      c.fillRect(x(i), lanes.steady, Math.max(1, cell - gap), 8);
      c.globalAlpha = 1;
    }
    if (this.work.draft) this.drawWork(c, x, cell, lanes);

    // suspect stretches: a mark above, where to jump with [ and ]
    c.fillStyle = this.colour("--refine");
    for (const { position } of timeline.suspects) {
      const middle = x(position) + cell / 2;
      c.beginPath();
      c.moveTo(middle - 4, lanes.ticks + 2);
      c.lineTo(middle + 4, lanes.ticks + 2);
      c.lineTo(middle, lanes.ticks + 9);
      c.fill();
    }

    // seconds
    c.fillStyle = this.colour("--soft");
    c.textAlign = "center";
    const seconds = timeline.frames[timeline.length - 1] / info.fps;
    const step = [1, 2, 5, 10, 20, 30, 60, 120].find((s) => (seconds / s) * 44 < width - LABELS) ?? 300;
    const perFrame = timeline.length > 1 ? timeline.frames[1] - timeline.frames[0] : 1;
    for (let s = 0; s <= seconds; s += step) {
      c.fillText(`${s} s`, x((s * info.fps) / perFrame) + cell / 2, lanes.axis + 6);
    }
    c.textAlign = "start";

    if (this.hover !== null) {
      c.fillStyle = this.colour("--hover");
      c.fillRect(x(this.hover), lanes.ticks, cell, lanes.axis - lanes.ticks - 4);
    }
    const head = x(this.position) + cell / 2;
    c.fillStyle = this.colour("--text");
    c.fillRect(head - 1, lanes.ticks + 4, 2, lanes.axis - lanes.ticks - 8);
    round(c, head - 5, lanes.ticks, 10, 10, 5);
  }
}

// Small pictures along the time, each of the frame at its middle.
Strip.prototype.drawFilm = function drawFilm(c, width, tall) {
  const { frames, info, timeline } = this.work;
  const count = Math.max(1, Math.floor(width / ((tall * info.width) / info.height)));
  const wide = width / count;
  const ratio = Math.ceil((window.devicePixelRatio || 1) * this.large);
  for (let n = 0; n < count; n++) {
    const picture = frames.thumb(Math.floor(((n + 0.5) / count) * timeline.length), tall * ratio);
    const x = LABELS + n * wide;
    c.fillStyle = this.colour("--lane");
    c.fillRect(x, 0, wide - 1, tall);
    if (!picture) continue;
    const shown = Math.min(picture.width, ((wide - 1) / tall) * picture.height);
    c.drawImage(picture, (picture.width - shown) / 2, 0, shown, picture.height, x, 0, wide - 1, tall);
  }
};

// What a person did: locked frames, prompts, hand-drawn frames, and how far a propagation has come.
Strip.prototype.drawWork = function drawWork(c, x, cell, lanes) {
  const { draft, progress } = this.work;
  const middle = lanes.presence + 5;
  draft.frames.forEach((frame, i) => {
    const at = x(i) + cell / 2;
    if (draft.locked.has(frame)) {
      c.fillStyle = this.colour("--text");
      c.fillRect(at - 4, middle - 4, 8, 8);
      c.fillStyle = this.colour("--panel");
      c.fillRect(at - 1, middle - 1, 2, 3);
    } else if (draft.edited.has(frame)) {
      c.fillStyle = this.colour("--panel");
      c.beginPath();
      c.arc(at, middle, 5.5, 0, 7);
      c.fill();
      c.fillStyle = this.colour(draft.prompts.has(frame) ? "--accept" : "--text");
      c.beginPath();
      c.arc(at, middle, 4, 0, 7);
      c.fill();
    }
    if (progress?.frames.has(frame)) {
      c.fillStyle = this.colour("--accept");
      c.fillRect(x(i), lanes.presence + 11, Math.max(1, cell), 3);
    }
  });
  if (this.work.absentFrom != null) {
    const [from, to] = [draft.frames.indexOf(this.work.absentFrom), this.position].sort((a, b) => a - b);
    c.fillStyle = this.colour("--reject");
    c.fillRect(x(from), lanes.presence - 3, (to - from + 1) * cell, 3);
  }
};

function round(c, x, y, width, height, radius) {
  c.beginPath();
  c.roundRect(x, y, Math.max(width, 1), height, Math.min(radius, Math.max(width, 1) / 2));
  c.fill();
}
