// How many clicks a person made, counted from the operations of a ticket.
// The rule is the one of annotation_queue/effort.py, which counts for the figures and the releases; a test compares them.

/** @import { Operation, Payload } from "./types.js" */

/**
 * The clicks in these operations, also those that were undone. A click is a point that was placed or moved, or a box
 * that was drawn.
 * @param {Operation[]} operations  of one ticket, in order
 */
export function clicksOf(operations) {
  /** @type {Map<number, {by: string, prompt: Payload}[]>} */
  const onFrame = new Map(); // prompts, and empty ones where a prompt ended
  const undone = new Set();
  const note = (/** @type {number} */ frame, /** @type {string} */ by, /** @type {Payload} */ prompt) => {
    onFrame.set(frame, [...(onFrame.get(frame) ?? []), { by, prompt }]);
  };
  let clicks = 0;
  for (const { operation_id, kind, frame_idx, payload } of operations) {
    if (kind === "undo") undone.add(payload.operation_id);
    else if (kind === "redo") undone.delete(payload.operation_id);
    else if (kind === "absent") {
      const [first, last] = [payload.first ?? Infinity, payload.last ?? -Infinity];
      for (const frame of onFrame.keys()) if (first <= frame && frame <= last) note(frame, operation_id, {});
    } else if (frame_idx === null) continue;
    else if (kind === "prompt") {
      const before = onFrame.get(frame_idx)?.findLast(({ by }) => !undone.has(by))?.prompt ?? {};
      clicks += clicksFrom(before, payload);
      note(frame_idx, operation_id, payload);
    } else if (kind === "stroke" || kind === "clear") note(frame_idx, operation_id, {});
  }
  return clicks;
}

/**
 * The clicks between two prompts of a frame. Removing points or keeping the box costs no click.
 * @param {Payload} before
 * @param {Payload} now
 */
function clicksFrom(before, now) {
  const [old, made] = [before, now].map(({ points_xy }) => points_xy?.length ?? 0);
  const box = now.box_xyxy && JSON.stringify(now.box_xyxy) !== JSON.stringify(before.box_xyxy) ? 1 : 0;
  const moved = made > 0 && made === old && !box ? 1 : 0;
  return Math.max(0, made - old) + moved + box;
}
