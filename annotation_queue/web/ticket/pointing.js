// Pointing at one of the other objects on the picture lights up its lane, and the other way round.

import { $ } from "../shared/dom.js";
import { player } from "./screen.js";

/** @param {number | null} n  which of the other objects is pointed to */
function light(n) {
  if (n === player.lit) return;
  player.light(n);
  for (const row of $("other-objects").children) row.classList.toggle("lit", row.id === `other-${n}`);
}

/** @param {EventTarget | null} target  inside of a lane, or not */
function lane(target) {
  const id = target instanceof Element ? target.closest(".other")?.id : undefined;
  return id === undefined ? null : Number(id.replace("other-", ""));
}

$("stage").addEventListener("pointermove", (event) => {
  if (!player.showOthers || event.buttons) return;
  const n = player.objectAt(event.clientX, event.clientY);
  if (n === player.lit) return;
  light(n);
  document.getElementById(`other-${n}`)?.scrollIntoView({ block: "nearest" });
});
$("stage").addEventListener("pointerleave", () => light(null));
for (const kind of ["pointerover", "focusin"]) {
  $("other-objects").addEventListener(kind, ({ target }) => light(lane(target)));
}
for (const kind of ["pointerleave", "focusout"]) $("other-objects").addEventListener(kind, () => light(null));
