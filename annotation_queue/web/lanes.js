// One lane for each other object of the video: where it is, and what a person did in it. A click goes there.

import { element } from "./dom.js";
import { OTHERS } from "./player.js";
import { area } from "./rle.js";

export function lanes(objects, timeline, onpick) {
  // objects: as player.js paints them; `work` is set where this person holds the ticket. A button each.
  const place = new Map(timeline.frames.map((frame, i) => [frame, i]));
  return objects.map((object, n) => {
    const state = object.work ? "yours" : object.settled ? "done" : "open";
    const track = element("span", { className: "track" });
    const stretches = runs(object, place);
    for (const [from, to] of stretches) track.append(bar("here", from, to + 1, timeline.length));
    const touched = object.work ? [...object.work.draft.edited, ...object.work.draft.locked] : [];
    for (const frame of touched) {
      const at = place.get(frame);
      if (at !== undefined) track.append(bar("touched", at, at + 1, timeline.length));
    }
    const row = element(
      "button",
      {
        type: "button",
        className: object.work ? "lane mine" : "lane",
        title: object.work ? "Go on with this object (M)" : "Go to where this object begins",
      },
      element("span", {}, `${n + 1} ${state}`),
      track,
    );
    row.style.setProperty("--object", `rgb(${OTHERS[n % OTHERS.length].join(" ")})`);
    row.addEventListener("click", () => onpick(object, stretches[0]?.[0] ?? 0));
    return row;
  });
}

function runs(object, place) {
  // [[first, last], …]: the stretches of positions where an object is present.
  const found = [];
  object.frame_idx.forEach((frame, i) => {
    const at = place.get(frame);
    if (at === undefined || !area(object.rle[i])) return;
    const last = found.at(-1);
    if (last && last[1] === at - 1) last[1] = at;
    else found.push([at, at]);
  });
  return found;
}

function bar(name, from, to, length) {
  const made = element("i", { className: name });
  made.style.left = `${(100 * from) / length}%`;
  made.style.width = `${(100 * (to - from)) / length}%`;
  return made;
}
