// A propagation by itself after each click, for people who choose it. The browser keeps the choice.

import { keep, keptSwitch } from "./choices.js";
import { element } from "../shared/dom.js";
import "./live.js"; // hears of the answer first, and puts it into the draft
import { desk, player } from "./screen.js";
import { session } from "../shared/session.js";

let on = keptSwitch("propagate-after-click");

/** A box that turns it on and off. @param {boolean} off  it cannot be chosen now @returns {HTMLElement} */
export function afterClickBox(off) {
  const box = element("input", { id: "after-click", type: "checkbox", checked: on, disabled: off });
  box.addEventListener("change", () => {
    on = box.checked;
    keep("propagate-after-click", on);
    if (!box.matches(":focus-visible")) box.blur(); // after a click with the pointer, the keys are for the page again
  });
  return element("label", { className: "after-click", title: "Propagate both ways as soon as a click has its mask" }, box, "after clicks");
}

session.on("answer", ({ item, event }) => {
  if (!on || event.event !== "done" || item.what !== "refine" || item.body.kind !== "prompt") return;
  const held = session.heldFor(item.ticketId);
  if (!held?.draft || held !== desk.held || player.between) return;
  // not if the person has undone the click, done something else or gone on to another frame meanwhile
  const last = held.draft.done.at(-1);
  if (last?.operation_id !== item.body.operation_id || desk.frame !== item.body.frame_idx) return;
  if (desk.masked() && desk.may("propagate")) desk.propagate("both");
});
