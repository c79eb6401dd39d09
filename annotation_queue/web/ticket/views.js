// What is shown of a ticket: when it comes on screen, when another frame does, when its draft changes.

/** @import { HeldTicket } from "../shared/held.js" */
/** @import { Side } from "../shared/session.js" */
import { showLease, showSwitch } from "./bar.js";
import { inOneLine, showFrameOfComments, textsOnScreen } from "./comments.js";
import { $, element } from "../shared/dom.js";
import * as keys from "../shared/keys.js";
import { showLabels } from "./labels.js";
import { checkNotice, notice, view } from "./messages.js";
import { noteGiven } from "./numbers.js";
import { showRows, showOthers } from "./objects.js";
import { showFacts, showQuestion, showTools, showVerdicts, showWatched } from "./panel.js";
import { desk, player, strip } from "./screen.js";
import { isReachable } from "./sending.js";
import { session } from "../shared/session.js";
import { many } from "../shared/words.js";

let toolsAt = -1; // the frame_idx that the tools are shown for
let reachable = true; // the queue answered when the frame was drawn last
let noticedAt = -1; // the frame_idx that was on screen when the note was looked at

session.on("ticket", (held) => {
  view("work");
  held.redraw();
  held.begin();
  if (!held.readOnly) saySide(held.side);
  showQuestion(held);
  showFacts(held);
  showVerdicts();
  showSwitch();
  strip.show(held);
  player.show(held);
  const correcting = held.side === "track" && !held.readOnly;
  desk.show(correcting ? held : null);
  player.showOthers ||= correcting && !held.ticket.masklet_id; // to find an object that nobody has masked
  showOthers();
  if (!held.isCorrection && player.mode === "before") player.setMode("fill");
  for (const button of $("modes").querySelectorAll("button")) {
    // hidden, but still taking its place, so that the other buttons do not move
    button.style.visibility = button.value === "before" && !held.isCorrection ? "hidden" : "";
  }
  showTools();
  player.portrait($("portrait", HTMLCanvasElement));
  player.play(!correcting && !held.readOnly);
  if (correcting) player.seek(held.pinned ?? held.timeline.suspects[0]?.position ?? held.firstPresent);
  showLease();
});

/**
 * Tell the person when the side of the work changes, or why it does not although they asked for the other side.
 * @param {Side} side
 */
function saySide(side) {
  const before = document.body.dataset.kind;
  const { asked } = session;
  noteGiven(side);
  if (asked && asked !== side) {
    notice(asked === "verify"
      ? "Nothing is left that you may verify: what you made or sent back is for another person."
      : "Nothing is left for you to correct.", { over: true });
  } else if (!asked && before && before !== side) {
    notice(side === "verify"
      ? "A masklet to verify has come in. It goes first."
      : "Nothing is left that you may verify. This masklet is to be corrected.", { over: true });
  }
  session.forgetAsked();
  document.body.dataset.kind = side;
}

/** @param {number} position  is on screen now */
function showFrame(position) {
  const held = session.current ?? player.held;
  if (!held) return;
  const { timeline, info, draft } = held;
  const { frame: frameIdx, between } = player;
  const annotated = between === 0;
  const seen = annotated && !player.hidden && document.visibilityState === "visible";
  if (seen && !held.readOnly) held.watching.see(position);
  showWatched();
  checkNotice(noticedAt === frameIdx ? undefined : "frame");
  noticedAt = frameIdx;
  strip.move(position + between / Math.max(1, (timeline.frames[1] ?? 1) - timeline.frames[0]));
  $("frame").textContent = String(frameIdx);
  $("frame").classList.toggle("between", !annotated);
  $("of").textContent = ` / ${timeline.frames[timeline.length - 1]}`;
  $("clock").textContent = `${(frameIdx / info.fps).toFixed(2)} s`;
  const present = timeline.present[position];
  const score = draft && !draft.masks.has(frameIdx) ? undefined : timeline.scores?.[position];
  $("score").textContent = score === undefined || !annotated ? "" : present ? `score ${score.toFixed(2)}` : "absent";
  if (desk.active) {
    desk.paint();
    if (toolsAt !== frameIdx) showTools();
    toolsAt = frameIdx;
  }
  const badges = badgesOf(held, position).map(([name, text]) => element("span", { className: `badge ${name}` }, text));
  const said = textsOnScreen().map((text) => element("span", { className: "badge said-here" }, text));
  $("badges").replaceChildren(...badges, ...said);
  showFrameOfComments();
}

/**
 * The texts above the video.
 * @param {HeldTicket} held
 * @param {number} position
 * @returns {[className: "" | "busy" | "doubt", text: string][]}
 */
function badgesOf({ timeline, draft, earlier, progress, rules }, position) {
  const frameIdx = player.frame;
  const present = timeline.present[position];
  const [before, after] = [timeline.frames[position], timeline.frames[position + 1]];
  /** @type {[className: "" | "busy" | "doubt", text: string][]} */
  const badges = [];
  if (player.between) {
    badges.push(["", `Not annotated: ${after === undefined ? `after ${before}` : `between ${before} and ${after}`}`]);
  } else if (draft && !draft.masks.has(frameIdx)) badges.push(["", "Not masked yet"]);
  else if (timeline.scores && !present) badges.push(["", "Absent in this frame"]);
  if (draft?.locked.has(frameIdx)) badges.push(["", "Locked"]);
  if (draft?.waiting().length) {
    const work = progress ? `Propagating · ${progress.text} · Esc stops it and keeps them` : "The model is at work";
    badges.push(isReachable() ? ["busy", work] : ["doubt", "No connection: the model gets this when there is one"]);
  } else if (draft?.stopping().length) badges.push(["busy", "Stopping"]);
  const { pinned } = rules;
  if (pinned?.frame_idx === frameIdx) {
    badges.push(["doubt", `${pinned.by} pointed here${pinned.text ? `: ${inOneLine(pinned.text)}` : ""}`]);
  }
  if (desk.absentFrom !== null) {
    const key = keys.hint("absent");
    badges.push(["doubt", `Absent from ${desk.absentFrom}: go to its last frame and press ${key} again`]);
  }
  if (desk.from !== null) {
    const key = keys.hint("stretch");
    badges.push(["doubt", `Propagate from ${desk.from}: go to the last frame and press ${key} again`]);
  }
  if (desk.corners) {
    const [close, back] = [keys.hint("submit"), keys.hint("undo")];
    badges.push(["", desk.corners < 3
      ? `Polygon: ${many(desk.corners, "corner")} of at least 3 · ${back} drops the last one, Esc all`
      : `${close} closes the polygon, Alt ${close} cuts it out · ${back} drops the last corner, Esc all`]);
  }
  const suspect = player.between ? null : timeline.suspect(position);
  if (suspect && (present || suspect.why !== "object leaves")) badges.push(["doubt", `Suspect: ${suspect.why}`]);
  if (player.hidden) badges.push(["", "Overlay hidden"]);
  else if (earlier && player.mode === "before") badges.push(["doubt", "Orange outline: before the correction"]);
  return badges;
}

function showShownFrame() {
  if (player.shown >= 0) showFrame(player.shown);
}

function showPlaying() {
  session.emit("playing");
  $("play").classList.toggle("playing", player.playing);
  $("speed").textContent = `${player.speed}×`;
  $("speed").ariaLabel = `Speed ${player.speed}×`;
  for (const button of $("modes").querySelectorAll("button")) {
    button.setAttribute("aria-checked", String(button.value === player.mode));
  }
}

session.on("draft", () => {
  const { held } = desk;
  if (!held || held !== session.current) return;
  held.redraw();
  held.absentFrom = desk.absentFrom;
  showFacts(held);
  showTools();
  strip.draw();
  player.refresh();
  desk.paint();
  showShownFrame();
});

session.on("progress", () => {
  session.current?.redraw();
  player.refresh();
  showShownFrame();
});

session.on("doubt", () => {
  const held = session.current;
  if (!held) return;
  held.redraw();
  showFacts(held);
  strip.draw();
  showRows();
  showShownFrame();
});

session.on("saving", () => {
  const now = isReachable();
  if (now === reachable) return;
  reachable = now;
  showShownFrame();
});

session.on("view", (name) => {
  if (name === "login") player.play(false);
});

session.on("theme", () => {
  strip.draw();
  showRows();
});

/** Write the keys wherever they are shown. */
export function showKeys() {
  for (const shown of document.querySelectorAll("[data-key]")) {
    if (!(shown instanceof HTMLElement)) continue;
    const key = keys.hint(shown.dataset.key ?? "");
    if (shown.tagName === "KBD") shown.textContent = key;
    else shown.title = `${(shown.dataset.title ??= shown.title)} (${key})`;
  }
  if (!session.current) return;
  showVerdicts();
  showTools();
  showLabels();
  showShownFrame();
}

player.onframe = showFrame;
player.onchange = showPlaying;
showPlaying();
new ResizeObserver(showRows).observe($("timeline")); // the rows are as wide as the strip
