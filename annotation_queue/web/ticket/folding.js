// More room for the video: the panel and the time line fold, and the page fills the screen.

import { keep, keptSwitch } from "./choices.js";
import { $ } from "../shared/dom.js";
import { notice } from "./messages.js";

/** @param {"panel" | "strip"} part @param {boolean} folded */
function fold(part, folded) {
  document.body.classList.toggle(`without-${part}`, folded);
  $(`fold-${part}`).ariaPressed = String(folded);
}

/** Fold a part of the page, or show it again. @param {"panel" | "strip"} part */
export function toggleFold(part) {
  const folded = !document.body.classList.contains(`without-${part}`);
  fold(part, folded);
  keep(`without-${part}`, folded);
}

/** Fill the screen with the page, or leave that. */
export async function toggleFullScreen() {
  try {
    await (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen());
  } catch {
    notice("This browser does not let the page fill the screen.");
  }
}

document.addEventListener("fullscreenchange", () => {
  $("full-screen").ariaPressed = String(document.fullscreenElement !== null);
});
$("full-screen").addEventListener("click", toggleFullScreen);
for (const part of /** @type {const} */ (["panel", "strip"])) {
  $(`fold-${part}`).addEventListener("click", () => toggleFold(part));
  fold(part, keptSwitch(`without-${part}`));
}
