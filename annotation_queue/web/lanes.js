// One lane for each other object of the video: where it is in view, what a person did in it, how sure the model was
// and how steady its masks are. A click goes there. A lane is drawn once somebody sees it: most of a hundred are not.

import { element } from "./dom.js";
import { LOW_SCORE } from "./masklet.js";
import { OTHERS } from "./player.js";
import { area, iou } from "./rle.js";

const TALL = 20; // px

const facts = new WeakMap(); // object → what its lane shows: it is read out of the masks once

export function lanes(objects, timeline, colour, onpick) {
  // objects: as player.js paints them; `work` is set where this person holds the ticket. A button each.
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) target.drawLane();
  });
  return objects.map((object, n) => {
    const canvas = element("canvas", { ariaHidden: "true" });
    const title = `Object ${n + 1}, ${object.work ? "yours" : object.settled ? "done" : "open"}`;
    const row = element(
      "button",
      {
        type: "button",
        id: `lane-${n}`,
        className: object.work ? "lane mine" : "lane",
        title: object.work ? "Go on with this object" : "Go to where this object begins",
        ariaLabel: title,
      },
      element("span", {}, title.replace(/^Object |,/g, "")),
      canvas,
    );
    row.drawLane = () => {
      const about = read(object, timeline);
      row.ariaLabel = `${title}: ${said(about)}`;
      draw(canvas, about, `rgb(${OTHERS[n % OTHERS.length].join(" ")})`, colour);
    };
    row.addEventListener("click", () => onpick(object, Math.max(0, read(object, timeline).here.indexOf(true))));
    seen.observe(row);
    return row;
  });
}

function read(object, timeline) {
  // By position of the timeline. here: true, false where the object is absent, undefined where nobody has masked it.
  const draft = object.work?.draft;
  if (facts.has(object)) return facts.get(object);
  const place = new Map(object.frame_idx.map((frame, i) => [frame, i]));
  const rles = timeline.frames.map((frame) => {
    const masked = place.has(frame) && (!draft || draft.masks.has(frame));
    return masked ? object.rle[place.get(frame)] : undefined;
  });
  const here = rles.map((rle) => rle && area(rle) > 0);
  const about = {
    here,
    scores: timeline.frames.map((frame, i) => (here[i] ? object.score[place.get(frame)] : undefined)),
    steady: rles.map((rle, i) => (here[i] && here[i - 1] ? iou(rles[i - 1], rle) : 1)),
    prompted: timeline.frames.map((frame) => Boolean(draft?.prompts.has(frame))),
    drawn: timeline.frames.map((frame) => Boolean(draft?.edited.has(frame) && !draft.prompts.has(frame))),
    locked: timeline.frames.map((frame) => Boolean(draft?.locked.has(frame))),
  };
  facts.set(object, about);
  return about;
}

function said({ here, prompted, drawn, locked }) {
  const count = (list) => list.filter(Boolean).length;
  const parts = [[count(prompted), "prompted"], [count(drawn), "drawn"], [count(locked), "locked"]];
  return [`in view in ${count(here)} of ${here.length} frames`, ...parts.filter(([n]) => n).map((part) => part.join(" "))].join(", ");
}

function draw(canvas, { here, scores, steady, prompted, drawn, locked }, own, colour) {
  // From the top: presence with what was done, score, steadiness.
  const large = Number(getComputedStyle(canvas).getPropertyValue("--large")) || 1;
  const ratio = (window.devicePixelRatio || 1) * large;
  const width = canvas.clientWidth / large;
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(TALL * ratio)];
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  const cell = width / here.length;
  const wide = Math.max(1, cell - (cell > 5 ? 1 : 0));
  const [lane, doubt, calm, text, panel, soft] = ["--lane", "--refine", "--score", "--text", "--panel", "--soft"].map(colour);
  c.fillStyle = lane;
  c.fillRect(0, 1, width, 7);
  c.fillRect(0, 16, width, 3);
  here.forEach((present, i) => {
    const x = i * cell;
    if (present === false) bar(c, soft, x, 4, cell, 1);
    if (!present) return;
    bar(c, own, x, 1, cell + 0.6, 7);
    if (scores[i] !== undefined) {
      const tall = 5 * Math.max(0.2, Math.min(1, (scores[i] - 0.5) / 0.5));
      bar(c, scores[i] < LOW_SCORE ? doubt : calm, x, 15 - tall, wide, tall);
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

function bar(c, fill, x, y, width, height) {
  c.fillStyle = fill;
  c.fillRect(x, y, width, height);
}

function disc(c, fill, x, radius) {
  c.fillStyle = fill;
  c.beginPath();
  c.arc(x, 4.5, radius, 0, 7);
  c.fill();
}
