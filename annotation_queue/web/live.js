// The model's answers to operations. The masks that are there stay until all new ones of an answer have come.

/** @import { OutboxItem, Operation, RefineEvent } from "./types.js" */
/** @import { HeldTicket } from "./held.js" */
import { newId } from "./api.js";
import { $ } from "./dom.js";
import { flash, notice } from "./messages.js";
import { sendOperation } from "./sending.js";
import { session } from "./session.js";
import { many } from "./words.js";

session.on("answer", ({ item, event }) => {
  const held = session.heldFor(item.ticketId);
  if (!held?.draft || item.cancelled || item.what !== "refine") return;
  if (event.event === "frame") return arrived(held, item, event);
  const id = item.body.operation_id;
  const frames = [...(held.arriving.get(id)?.values() ?? [])];
  held.arriving.delete(id);
  held.progress = null;
  if (event.event === "done") {
    held.draft.answer(id, { frames, checkpoint: event.checkpoint, round: event.round });
    if (item.body.kind === "propagate" && held === session.current) {
      if (frames.length) flash("unsure", `${many(frames.length, "frame")} propagated`);
      else notice("There is nothing to propagate: the next frames are locked or prompted.");
    }
  } else if (event.event === "failed") {
    notice(`The model did not answer: ${event.error || event.why}`);
    undo(held, id);
  }
  if (held !== session.current) return;
  session.emit("draft");
  $("screen").dispatchEvent(new CustomEvent("answered", { detail: item.body.kind })); // benchmarks wait for it
});

/**
 * One mask of an answer.
 * @param {HeldTicket} held
 * @param {Extract<OutboxItem, {what: "operation" | "refine"}>} item
 * @param {Extract<RefineEvent, {event: "frame"}>} event
 */
function arrived(held, { body }, { frame }) {
  const masks = held.arriving.get(body.operation_id) ?? new Map();
  held.arriving.set(body.operation_id, masks);
  masks.set(frame.frame_idx, frame);
  if (body.kind !== "propagate") return; // the end of the answer follows at once
  held.progress = masks;
  if (held === session.current) session.emit("progress");
}

/**
 * Undo an operation that the model could not answer, unless the person has undone it.
 * @param {HeldTicket} held
 * @param {string} operation_id
 */
function undo(held, operation_id) {
  if (!held.draft?.done.some((operation) => operation.operation_id === operation_id)) return;
  const created_at = new Date().toISOString();
  /** @type {Operation} */
  const operation = { operation_id: newId(), kind: "undo", frame_idx: null, payload: { operation_id }, created_at };
  held.draft.add(operation);
  sendOperation(held, operation);
}
