// The bar at the top: what is saved, the lease, how much is left to do, the person's pace.

import { $ } from "../shared/dom.js";
import { isMessage, shownView, waits } from "./messages.js";
import { leftToDo, refreshStats, takeable } from "./numbers.js";
import { isReachable, outbox } from "./sending.js";
import { session } from "../shared/session.js";
import { many, NUMBERS } from "../shared/words.js";

const PACES = 20; // answers that the pace is the mean of

/** @type {number[]} */
let paces = []; // s a verify ticket
let answering = false; // an answer is on its way

/** Whether everything that the person did is at the queue. */
export function showSaveState() {
  const pending = outbox.pending();
  const waiting = pending.length;
  const unreachable = !isReachable();
  const locked = shownView() === "login"; // nothing is sent before somebody logs in
  const state = unreachable || (locked && waiting) ? "offline" : waiting ? "saving" : "saved";
  const acts = pending.filter((item) => item.what !== "finish").length;
  const stored = pending.every((item) => item.stored);
  const what = many(waiting, acts ? "change" : "answer");
  const kept = stored ? `${what} kept here` : `keeping ${what}`;
  const offline = [...(unreachable ? ["No connection"] : []), ...(waiting ? [kept] : [])].join(" · ");
  $("save").dataset.state = state;
  $("save").hidden = session.me === null && state === "saved";
  $("save-text").textContent = { offline, saving: "Saving", saved: "Saved" }[state];
  answering ||= acts < waiting;
  if (state !== "saved" || !answering) return;
  answering = false;
  if (session.me) refreshStats(); // one ticket less
}

/** How long the lease lasts, once it is not renewed any more because there is no connection. */
export function showLease() {
  const { current, me } = session;
  $("lease").hidden = true;
  if (!current || !me || current.readOnly) return;
  const left = Math.max(0, me.lease_s - (performance.now() - current.renewedAt) / 1000);
  $("lease").hidden = left > me.lease_s / 2;
  $("lease").textContent = `lease ${Math.ceil(left)} s`;
  $("lease").classList.toggle("low", left < me.lease_s / 3);
}

/** The button to the other side of the work, if there is something to do. */
export function showSwitch() {
  const { verify, track } = session.may;
  const other = session.side === "verify" ? "track" : "verify";
  const waiting = takeable(other);
  const nothingLeft = isMessage() && waits() === "nothingLeft";
  $("turn").hidden = !(verify && track) || waiting <= 0 || nothingLeft;
  const count = Number.isFinite(waiting) ? ` ${NUMBERS.format(waiting)}` : "";
  $("turn").textContent = (other === "track" ? "Correct" : "Verify") + count;
}

session.on("saving", showSaveState);
session.on("view", showSaveState);
session.on("view", () => session.me && showSwitch());
session.on("stats", () => {
  $("left").textContent = leftToDo();
  showSwitch();
});
session.on("finished", (seconds) => {
  paces = [...paces.slice(1 - PACES), seconds];
  $("pace").textContent = `${(paces.reduce((a, b) => a + b, 0) / paces.length).toFixed(1)} s a masklet`;
});
