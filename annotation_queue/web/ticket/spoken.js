// What a screen reader says by itself: verdicts, reasons to choose from, tickets, and the frame on screen once it rests.

import { $, element } from "../shared/dom.js";
import "./panel.js"; // writes the question before it is said
import { player } from "./screen.js";
import { session } from "../shared/session.js";
import { ASKS, REASONS, WHY } from "../shared/words.js";

const REST_MS = 400; // a frame is said after so long on screen: not while somebody holds a key
const KEPT = 4; // texts that stay, so that one does not cut the other off

/** @type {number | undefined} */
let timer = undefined;

/** @param {string} text */
function say(text) {
  const all = $("spoken");
  all.append(element("p", {}, text));
  while (all.childElementCount > KEPT) all.firstElementChild?.remove();
}

/** Say the frame on screen if it still is there in a moment. A video that plays says nothing. */
function sayFrameSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (player.playing || !session.current || player.shown < 0) return;
    const badges = [...document.querySelectorAll("#badges .badge:not(.busy)")].map((badge) => badge.textContent);
    say([`Frame ${player.frame}`, $("score").textContent, ...badges].filter(Boolean).join(", "));
  }, REST_MS);
}

$("screen").addEventListener("painted", sayFrameSoon);
session.on("playing", sayFrameSoon);
session.on("flash", say);
session.on("ticket", ({ ticket }) => say(`${ASKS[ticket.kind].name}: ${$("question").textContent}`));
session.on("choosing", () => {
  const { choosing, person } = session;
  if (!choosing) return;
  if (document.querySelector("#verdicts .objects")) return say(document.querySelector("#verdicts .label")?.textContent ?? "");
  const reasons = (WHY[choosing] ?? []).map((reason) => `${person.reasons.indexOf(reason) + 1} ${REASONS[reason]}`);
  say(`Why? ${reasons.join(", ")}`);
});
