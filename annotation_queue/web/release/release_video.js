// A video of a release: it plays with the masks of all its masklets, or of one of them.

/** @import { ReleaseMasklet, ReleaseVideo } from "../shared/release_types.js" */
import * as api from "../shared/api.js";
import { drawBorder } from "../canvas/border.js";
import { $, element, pen } from "../shared/dom.js";
import { Frames } from "../shared/frames.js";
import { Overlay } from "../shared/overlay.js";
import { colourOf } from "../canvas/palette.js";
import { Masks } from "./release_masks.js";
import { runs, spans } from "../shared/rle.js";
import { many } from "../shared/words.js";

const STRIDE = 4; // frames of the stored video between annotated ones

/**
 * What is on screen.
 * @typedef {object} Open
 * @property {ReleaseVideo} video
 * @property {Frames} frames
 * @property {Overlay} overlay
 * @property {Masks} masks
 * @property {number | null} chosen  masklet; null: all
 * @property {number} position
 */

/** @type {Open | null} */
let open = null;
let turn = 0; // of the questions: an answer to an older one is dropped
/** @type {number | undefined} */
let playing;

const scrub = $("scrub", HTMLInputElement);
const screen = $("picture", HTMLCanvasElement);

/**
 * Show a video of a release.
 * @param {string} release
 * @param {string} videoId
 * @param {string | null} maskletId  the masklet to begin with; null: all
 */
export async function showVideo(release, videoId, maskletId) {
  close();
  const mine = ++turn;
  $("video-title").textContent = "…";
  const video = await api.releaseVideo(release, videoId);
  if (mine !== turn) return;
  const { info, masklets } = video;
  const annotated = Array.from({ length: Math.ceil(info.frame_count / STRIDE) }, (_, n) => n * STRIDE);
  const frames = new Frames(videoId, annotated, api.frameOf(release));
  const masks = new Masks(info.frame_count, api.masksOf(release, videoId));
  const chosen = masklets.findIndex(({ masklet_id }) => masklet_id === maskletId);
  open = { video, frames, masks, overlay: new Overlay(info.height, info.width), chosen: chosen < 0 ? null : chosen, position: 0 };
  frames.onready = draw;
  masks.onready = () => goTo(open?.position ?? 0);
  screen.width = info.width;
  screen.height = info.height;
  scrub.max = String(annotated.length - 1);
  $("video-title").textContent = info.name || videoId;
  $("video-facts").textContent = `${videoId} · ${info.width} × ${info.height} · ${(info.frame_count / info.fps).toFixed(1)} s`;
  $("objects").replaceChildren(...masklets.map((about, n) => element("li", {}, buttonOf(about, n))));
  choose(open.chosen);
  goTo(open.chosen === null ? 0 : masklets[open.chosen].best / STRIDE);
  $("video-title").focus();
}

/** No video is shown any more. */
export function close() {
  turn++;
  pause();
  open?.frames.close();
  open?.masks.close();
  open = null;
  for (const id of ["objects", "facts"]) $(id).replaceChildren();
}

// --- the picture -----------------------------------------------------------------------------------------------------

function draw() {
  if (!open) return;
  const { video, frames, overlay, masks, chosen, position } = open;
  const bitmap = frames.ready(position);
  const frame = frames.frameIdx[position];
  const here = masks.at(frame);
  if (!bitmap || !here) return;
  const { height, width } = video.info;
  const context = pen(screen);
  context.drawImage(bitmap, 0, 0, width, height);
  const shown = here.map((rle, n) => ({ n, rle })).filter(({ n, rle }) => rle && (chosen === null || n === chosen));
  const thick = Math.max(1, Math.round((2 * width) / (screen.clientWidth || width)));
  overlay.clear();
  const found = shown.map(({ n, rle }) => ({ n, mask: spans(runs(rle ?? ""), height, width) }));
  for (const { n, mask } of found) overlay.fill(mask, [...colourOf(n), 100]);
  overlay.drawOn(context);
  for (const { n, mask } of found) drawBorder(context, mask, height, colourOf(n), thick);
  screen.dataset.frame = String(frame);
}

/** @param {number} position */
function goTo(position) {
  if (!open) return;
  open.position = Math.max(0, Math.min(open.frames.frameIdx.length - 1, position));
  want(open, open.position);
  scrub.value = String(open.position);
  const frame = open.frames.frameIdx[open.position];
  scrub.setAttribute("aria-valuetext", `frame ${frame}`);
  $("at").textContent = `frame ${frame} · ${(frame / open.video.info.fps).toFixed(2)} s`;
  draw();
}

/**
 * Fetch a frame and its masks.
 * @param {Open} from
 * @param {number} position
 */
function want({ frames, masks }, position) {
  frames.want(position);
  masks.want(frames.frameIdx[position]);
}

function play() {
  if (!open || playing !== undefined) return;
  const every = (1000 * STRIDE) / open.video.info.fps;
  playing = window.setInterval(() => {
    if (!open) return;
    const next = (open.position + 1) % open.frames.frameIdx.length;
    want(open, next);
    // what is late stops the video: no frame is left out, and none is shown without its masks
    if (open.frames.ready(next) && open.masks.at(open.frames.frameIdx[next])) goTo(next);
  }, every);
  sayPlaying();
}

function pause() {
  window.clearInterval(playing);
  playing = undefined;
  sayPlaying();
}

function sayPlaying() {
  $("play").textContent = playing === undefined ? "▶" : "❚❚";
  $("play").setAttribute("aria-label", playing === undefined ? "Play" : "Pause");
  $("at").setAttribute("aria-live", playing === undefined ? "polite" : "off"); // six frames a second are too many to say
}

const playOrPause = () => (playing === undefined ? play() : pause());

/** @param {number} by */
function move(by) {
  pause();
  if (open) goTo(open.position + by);
}

// --- the masklets ----------------------------------------------------------------------------------------------------

/** @type {(about: ReleaseMasklet, n: number) => HTMLElement} */
function buttonOf(about, n) {
  const swatch = element("i", { className: "swatch" });
  swatch.style.background = `rgb(${colourOf(n).join(" ")})`;
  return element("button", { type: "button", className: "object-of", id: `object-${n}`, onclick: () => choose(open?.chosen === n ? null : n) },
    swatch, element("span", {}, `${n + 1} · ${about.label ?? about.kind}`),
    element("span", { className: "soft" }, `${about.shown} of ${about.frames}`));
}

/** Show one masklet, or all. @param {number | null} n */
function choose(n) {
  if (!open) return;
  open.chosen = n;
  open.video.masklets.forEach((_, each) => $(`object-${each}`).setAttribute("aria-pressed", String(each === n)));
  $("facts").replaceChildren(...(n === null ? [] : factsOf(open.video.masklets[n])).flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", { title: value }, value)]));
  draw();
}

/** @param {ReleaseMasklet} about @returns {[name: string, value: string][]} */
function factsOf(about) {
  const share = (/** @type {number | null} */ value) => (value === null ? "–" : value.toFixed(2));
  return [
    ["Masklet", about.masklet_id],
    ["Kind", `${about.kind}, phase ${about.phase}`],
    ["Size", about.size ? `${about.size}, ${Math.round(about.area_px)} px` : "never visible"],
    ["Made by", about.checkpoint],
    ["Annotated by", about.annotated_by ?? "–"],
    ["Verified by", about.verified_by ?? "–"],
    ["Verdict", about.verdict ?? "–"],
    ["Edited frames", `${about.edited}, ${many(about.clicks, "click")}`],
    ["Mean score", share(about.score)],
    ["Disagreement", share(about.disagreement)],
    ["Split", about.split],
  ];
}

/** Whether a key belongs to the video; then it was done. @param {KeyboardEvent} event */
export function pressed({ key }) {
  if (!open) return false;
  const count = open.video.masklets.length;
  const { chosen } = open;
  if (key === " ") playOrPause();
  else if (key === "ArrowLeft") move(-1);
  else if (key === "ArrowRight") move(1);
  else if (key === "ArrowDown") choose(chosen === null ? 0 : (chosen + 1) % count);
  else if (key === "ArrowUp") choose(chosen === null ? count - 1 : (chosen - 1 + count) % count);
  else if (key === "0") choose(null);
  else return false;
  return true;
}

$("play").addEventListener("click", playOrPause);
$("frame-back").addEventListener("click", () => move(-1));
$("frame-on").addEventListener("click", () => move(1));
scrub.addEventListener("input", () => {
  pause();
  goTo(Number(scrub.value));
});
