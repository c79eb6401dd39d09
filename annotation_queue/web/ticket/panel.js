// The panel beside the video: facts about the ticket, the tools, the verdicts.

/** @import { Kind, Verdict } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
import { afterClickBox } from "./after_click.js";
import { answer, leaveTicket, submitMasklet } from "./answers.js";
import { isSized, sizeField } from "./brush_size.js";
import { $, element, replace } from "../shared/dom.js";
import * as keys from "../shared/keys.js";
import { batches, copyButton, named, nameOfVideo } from "../shared/names.js";
import { begunBeside, newObject, otherObject } from "./objects.js";
import { backToWork } from "./opening.js";
import { desk, player } from "./screen.js";
import { session } from "../shared/session.js";
import { REACHES, TOOLS } from "../canvas/tools.js";
import { backToReasons, questions } from "./why.js";
import { ASKS, many, REASONS, VERDICTS } from "../shared/words.js";

/** Hints that differ from those of `VERDICTS`, by kind of ticket.
 * @type {{[kind in Kind]?: string}} */
const HINTS = { track: "cannot be tracked", select: "nothing challenging is left here" };

/** @param {HeldTicket} held  what the ticket asks for, and of which batch it is */
export function showQuestion(held) {
  const { ticket, rules } = held;
  const again = ticket.rework ? " · once more" : ""; // a correction, or its check, that was sent back
  const why = rules.pinned?.verdict === "unsure" ? "a verifier was unsure" : "a lead decides";
  // only leads learn it: gold comes from a batch of long ago
  $("batch").replaceChildren(...(ticket.batch_id ? [named(batches, ticket.batch_id, "batch")] : []));
  $("eyebrow").textContent = ASKS[ticket.kind].name + again + (ticket.needs_lead ? ` · ${why}` : "");
  $("question").textContent = held.isNewObject ? "Mask a new object." : ASKS[ticket.kind].question;
}

/** @param {HeldTicket} held */
export function showFacts(held) {
  const { before, timeline } = held;
  $("checkpoint").textContent = before ? `${before.checkpoint} · round ${before.round}` : "Nobody yet";
  $("origin").textContent = before
    ? before.annotated_by ? `corrected by ${before.annotated_by}` : "automatic, not corrected"
    : "to be made by hand";
  const list = factsOf(held).flatMap(([term, value]) => term
    ? [element("dt", {}, term), element("dd", { title: value }, value)]
    : [element("dd", { className: "said-text" }, value)]);
  const { video_id } = held.ticket;
  const video = element("span", { className: "known", title: video_id }, nameOfVideo(held.info));
  const copies = element("span", { className: "named" }, video, copyButton(video_id, "Copy the id of this video"));
  $("facts").replaceChildren(element("dt", {}, "Video"), element("dd", {}, copies), ...list);
  const { length } = timeline.suspects;
  $("suspects").textContent = length ? many(length, "suspect") : "no suspects";
  for (const id of ["previous-suspect", "next-suspect"]) $(id, HTMLButtonElement).disabled = length === 0;
}

/**
 * @param {HeldTicket} held
 * @returns {[term: string, value: string][]}  without a term: what a person wrote about the fact before
 */
function factsOf({ ticket, rules, before, timeline, draft, labelling }) {
  /** @type {[string, string][]} */
  const facts = [["Phase", ticket.phase]];
  facts.push(["Present", `${timeline.presentCount} of ${many(timeline.length, "frame")}`]);
  if (before?.label && !labelling) facts.push(["Label", before.label]); // an import brought it, and nobody changes it here
  const pin = rules.pinned;
  if (pin) {
    const why = pin.reasons.map((reason) => REASONS[reason] ?? reason).join(", ");
    const sentBack = pin.verdict === "refine" && !ticket.needs_lead; // with a tie, "refine" is one side of it
    const who = sentBack ? `Sent back by ${pin.by}` : `${pin.by} pointed to`;
    const where = pin.frame_idx === null ? "no frame" : `frame ${pin.frame_idx}`;
    facts.push([who, `${where}${why ? `: ${why.toLowerCase()}` : ""}`]);
    if (pin.text) facts.push(["", `“${pin.text}”`]);
  }
  if (draft) {
    facts.push(["Changed", `${many(draft.edited.size, "frame")}, ${many(draft.clicks, "click")}`]);
    if (draft.unmasked().length) facts.push(["Not masked", many(draft.unmasked().length, "frame")]);
    return facts;
  }
  const scored = timeline.scored();
  if (scored) facts.push(["Score", `${scored.mean.toFixed(2)} mean, ${scored.lowest.toFixed(2)} lowest`]);
  if (before?.click_count) facts.push(["Clicks", `${before.click_count} on ${many(before.edited_frame_count, "frame")}`]);
  return facts;
}

/**
 * @param {string} id  of the action
 * @param {string} text
 * @param {() => unknown} run
 * @param {{on?: boolean, off?: boolean}} [looks]  pressed, disabled
 */
function toolButton(id, text, run, { on = false, off = false } = {}) {
  return element(
    "button",
    {
      type: "button",
      id: `tool-${id}`,
      className: "tool",
      onclick: () => void run(),
      disabled: off || (player.between > 0 && Boolean(keys.actionOf(id).frame)),
      title: keys.actionOf(id).title,
      ariaPressed: String(on),
    },
    element("span", {}, text),
    element("kbd", {}, keys.hint(id)),
  );
}

/** How far a propagation goes. @param {boolean} off */
function reachChoice(off) {
  const choices = REACHES.map((most) => element(
    "option", { value: String(most), selected: most === desk.reach }, most ? `by ${many(most, "frame")}` : "to the end"));
  const onchange = (/** @type {Event} */ { target }) => {
    if (!(target instanceof HTMLSelectElement)) return;
    desk.reach = Number(target.value);
    target.blur(); // the keys are for the page again
  };
  return element("select", { id: "reach", className: "reach", ariaLabel: "How far", disabled: off, onchange }, ...choices);
}

export function showTools() {
  const bar = $("tools");
  const { held } = desk;
  bar.hidden = !held?.draft;
  if (!held?.draft) return;
  const { draft } = held;
  const label = (/** @type {string} */ text) => element("p", { className: "label" }, text);
  const still = !desk.may("propagate");
  const changed = draft.edited.has(desk.frame);
  const absent = desk.absentFrom !== null;
  replace(
    bar,
    ...TOOLS.map(({ tool, title }) =>
      toolButton(tool, title, () => desk.choose(tool), { on: desk.tool === tool, off: !desk.allows(tool) })),
    toolButton("clear", changed ? "Forget" : "Empty", () => desk.clear(), { off: !changed && !desk.masked() }),
    ...(isSized() ? [sizeField()] : []),
    element("div", { className: "label spread" }, "Propagate", reachChoice(still), afterClickBox(still)),
    toolButton("backward", "◀ Back", () => desk.propagate("backward"), { off: still }),
    toolButton("forward", "Forward ▶", () => desk.propagate("forward"), { off: still }),
    toolButton("both", "◀ Both ▶", () => desk.propagate("both"), { off: still }),
    toolButton("stretch", desk.from === null ? "To a frame" : "… to here", () => desk.stretch(), {
      on: desk.from !== null, off: still,
    }),
    label("This frame"),
    toolButton("lock", "Lock", () => desk.lock(), { on: draft.locked.has(desk.frame) }),
    toolButton("absent", absent ? "… to here" : "Absent", () => desk.absent(), { on: absent }),
    toolButton("newObject", "New object", newObject),
    toolButton("otherObject", "Next object", otherObject, { off: begunBeside(held).length === 0 }),
    toolButton("undo", "Undo", () => desk.undo(), { off: draft.done.length === 0 }),
    toolButton("redo", "Redo", () => desk.redo(), { off: draft.undone.length === 0 }),
  );
}

/** The verdicts of the ticket on screen, or the reasons for the chosen one. */
export function showVerdicts() {
  const { current, choosing } = session;
  document.body.classList.toggle("choosing", choosing !== null);
  if (!current) return;
  const back = quietButton("Esc", "back", () => backToReasons() || session.choose(null));
  replace($("verdicts"), ...(choosing ? [...questions(choosing), back] : verdicts(current)));
  showWatched();
}

/** How much of the masklet was on screen, above its verdicts. */
export function showWatched() {
  const { current, choosing } = session;
  const line = document.getElementById("watched");
  if (!line || current?.side !== "verify" || choosing) return;
  const { watching } = current;
  const missing = watching.missing("accept", session.person.watch);
  const rest = missing ? ` · ${missing} more to accept` : "";
  line.textContent = `Seen ${watching.seen} of ${many(watching.frames, "frame")}${rest}`;
}

/** What became of a ticket that is only looked at. @param {HeldTicket} held */
function answered({ ticket }) {
  const { state, verdict, finished_by, leased_by, reasons } = ticket;
  const title = VERDICTS.find((each) => each.verdict === verdict)?.title ?? "Submitted";
  const why = reasons.map((reason) => REASONS[reason]?.toLowerCase()).join(", ");
  const text = state === "done" ? `${title} by ${finished_by}${why ? `: ${why}` : ""}`
    : state === "leased" ? `In the hands of ${leased_by}` : "Open";
  return [
    element("p", { className: "label" }, "To be looked at only"),
    element("p", { id: "answered" }, text),
    verdictButton("unsure", "back-to-work", keys.sign("Enter"), "Back to work", "the next ticket", backToWork),
  ];
}

/** @param {HeldTicket} held */
function verdicts(held) {
  const { ticket, side } = held;
  if (held.readOnly) return answered(held);
  const correcting = side === "track";
  const offered = VERDICTS.filter(({ verdict }) =>
    correcting ? verdict === "reject" : !(verdict === "unsure" && ticket.needs_lead));
  const buttons = offered.map(({ verdict, title, hint }) =>
    verdictButton(verdict, `verdict-${verdict}`, keys.hint(verdict), title, HINTS[ticket.kind] ?? hint, () => answer(verdict)));
  if (!correcting) return [element("p", { className: "label", id: "watched" }), ...buttons];
  const submit = verdictButton("accept", "submit", keys.hint("submit"), "Submit", "it is right in every frame now", submitMasklet);
  return [submit, ...buttons, quietButton(keys.hint("leave"), "leave this ticket", leaveTicket)];
}

/** @type {(look: Verdict, id: string, key: string, title: string, hint: string, run: () => unknown) => HTMLElement} */
function verdictButton(look, id, key, title, hint, run) {
  return element(
    "button",
    { type: "button", id, className: `verdict ${look}`, onclick: () => void run() },
    element("kbd", {}, key),
    element("span", {}, element("b", {}, title), element("small", {}, hint)),
  );
}

/** @type {(key: string, text: string, run: () => unknown) => HTMLElement} */
function quietButton(key, text, run) {
  const properties = { type: /** @type {const} */ ("button"), className: "quiet back", onclick: () => void run() };
  return element("button", properties, element("kbd", {}, key), ` ${text}`);
}

session.on("choosing", showVerdicts);
