// The model's answers to operations. A mask of a propagation is shown when it comes; the answer to a prompt is one mask.

/** @import { FrameMask, Operation, OutboxItem, RefineEvent } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
import { newId } from "../shared/api.js";
import { $ } from "../shared/dom.js";
import { flash, notice } from "./messages.js";
import { Progress } from "../shared/progress.js";
import { sendOperation } from "./sending.js";
import { session } from "../shared/session.js";
import { many } from "../shared/words.js";

let due = false; // the progress on screen is drawn again soon

/** @typedef {{item: OutboxItem, event: RefineEvent}} Answer */

/** @type {Map<string, Answer[]>} */
const early = new Map(); // by ticket: answers that came while a reloaded page still fetched the ticket

session.on("answer", (answer) => {
  const { item, event } = answer;
  const held = session.heldFor(item.ticketId);
  if (held) {
    catchUp(held);
    return hear(held, answer);
  }
  early.set(item.ticketId, early.get(item.ticketId) ?? []);
  early.get(item.ticketId)?.push(answer);
  if (event.event === "done" || event.event === "failed") early.delete(item.ticketId); // it is asked for once more
});

session.on("ticket", catchUp);

/** @param {HeldTicket} held  is here now */
function catchUp(held) {
  const missed = early.get(held.ticket.ticket_id) ?? [];
  early.delete(held.ticket.ticket_id);
  if (!held.draft || missed.length === 0) return;
  const asked = new Set([...held.draft.waiting(), ...held.draft.stopping()].map(({ operation_id }) => operation_id));
  for (const answer of missed) {
    const { body } = answer.item;
    if (body && "operation_id" in body && asked.has(body.operation_id)) hear(held, answer);
  }
}

/**
 * @param {HeldTicket} held
 * @param {Answer} answer
 */
function hear(held, { item, event }) {
  if (!held.draft || item.cancelled || item.what !== "refine") return;
  const { kind, payload } = item.body;
  /** @type {string} */
  const id = kind === "stop" ? JSON.parse(payload).operation_id : item.body.operation_id;
  if (event.event === "kept") {
    if (kind === "propagate") held.progress = new Progress(event.frames, event.made);
  } else if (event.event === "frame") {
    arrived(held, id, kind, event.frame);
  } else if (event.event !== "alive") {
    ended(held, id, kind, event);
    held.redraw();
    if (held !== session.current) return;
    session.emit("draft");
    $("screen").dispatchEvent(new CustomEvent("answered", { detail: kind })); // benchmarks wait for it
  }
}

/**
 * One mask of an answer.
 * @param {HeldTicket} held
 * @param {string} id  of the prompt or the propagation
 * @param {string} kind  of the operation that is answered
 * @param {FrameMask} mask
 */
function arrived(held, id, kind, mask) {
  if (kind === "prompt") {
    held.arriving.set(id, [...(held.arriving.get(id) ?? []), mask]); // the end of the answer follows at once
    return;
  }
  held.draft?.receive(id, mask);
  held.progress?.add(mask.frame_idx, performance.now());
  if (due || held !== session.current) return;
  due = true; // several come at once: one drawing shows them all
  requestAnimationFrame(() => {
    due = false;
    if (!session.current?.draft) return;
    session.emit("progress");
    $("screen").dispatchEvent(new CustomEvent("streamed")); // benchmarks wait for it
  });
}

/**
 * The last event of an answer.
 * @param {HeldTicket} held
 * @param {string} id  of the prompt or the propagation
 * @param {string} kind  of the operation that is answered
 * @param {Extract<RefineEvent, {event: "done" | "failed"}>} event
 */
function ended(held, id, kind, event) {
  const { draft } = held;
  if (!draft) return;
  const frames = (kind === "prompt" ? held.arriving.get(id) : draft.versions.get(id)?.frames) ?? [];
  held.arriving.delete(id);
  held.progress = null;
  const count = many(frames.length, "frame");
  if (event.event === "done") {
    draft.answer(id, { frames, checkpoint: event.checkpoint, round: event.round });
    if (kind === "prompt" || held !== session.current) return;
    if (kind === "stop") flash("unsure", `Stopped: ${count} kept`);
    else if (frames.length) flash("unsure", `${count} propagated`);
    else notice("There is nothing to propagate: the next frames are locked or prompted.");
  } else if (kind === "propagate" && frames.length) {
    notice(`The model failed, and ${count} of the propagation came before: ${event.error || event.why}`);
    act(held, "stop", { operation_id: id, last: frames[frames.length - 1].frame_idx });
  } else if (kind !== "stop") {
    notice(`The model did not answer: ${event.error || event.why}`);
    // unless the person has undone it
    if (draft.done.some(({ operation_id }) => operation_id === id)) act(held, "undo", { operation_id: id });
  }
}

/**
 * An operation that follows from an answer, not from the person.
 * @param {HeldTicket} held
 * @param {string} kind
 * @param {Operation["payload"]} payload
 */
function act(held, kind, payload) {
  /** @type {Operation} */
  const operation = { operation_id: newId(), kind, frame_idx: null, payload, created_at: new Date().toISOString() };
  held.draft?.add(operation);
  sendOperation(held, operation);
}
