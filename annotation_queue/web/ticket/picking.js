// The next click on the picture has a meaning of its own: it names a point or an object instead of using a tool.

/** @import { Point } from "../shared/types.js" */
import { $ } from "../shared/dom.js";
import { checkNotice } from "./messages.js";
import { player } from "./screen.js";
import { session } from "../shared/session.js";

/** @typedef {(at: Point, position: number) => void} Take  px of the video, and the position on screen */

/** @type {Take | null} */
let taker = null;
let swallows = false; // the click that follows a press on the picture does nothing else

/** @param {Take | null} take  gets each press on the picture until somebody else does; null: the tools get it again */
export function pick(take) {
  taker = take;
  $("stage").classList.toggle("picking", take !== null);
  checkNotice(); // that the picture is to be clicked may no longer be true
}

/** Whether the next press on the picture is for this one. @param {Take} take */
export const picks = (take) => taker === take;

/** Give the picture back to the tools, unless somebody else picks by now. @param {Take} take */
export function endPick(take) {
  if (taker === take) pick(null);
}

document.addEventListener("pointerdown", (event) => {
  swallows = false;
  const { held, shown } = player;
  if (!taker || !held || shown < 0 || event.button !== 0) return;
  if (!(event.target instanceof Element) || !$("stage").contains(event.target) || event.target.closest("button")) return;
  swallows = true;
  event.stopImmediatePropagation();
  event.preventDefault();
  const [x, y] = player.toVideo(event.clientX, event.clientY);
  if (x >= 0 && y >= 0 && x <= held.info.width && y <= held.info.height) taker([x, y], shown);
}, true);

document.addEventListener("click", (event) => {
  if (!swallows) return;
  swallows = false;
  event.stopImmediatePropagation();
}, true);

session.on("ticket", () => pick(null));
session.on("view", (name) => name !== "work" && pick(null));
