// Which masklets are calm: those that a person can judge from a small picture that plays, among others on a sheet.
// Pure: the one place that decides it. Gold is judged by the same rule, from the same fields, and so does not stand out.

/** @import { HeldTicket } from "../shared/held.js" */
import { LOW_SCORE } from "../shared/timeline.js";

const LEAST_MEAN_SCORE = 0.85; // of the model's own estimates, over the frames with the object
const MOST_FRAMES = 120; // annotated frames, 20 s of video: a longer masklet is not watched through in a tile

/**
 * Whether a masklet is calm. No frame is suspect, so its score is never low and neither its mask nor its area jumps; the
 * object is always in view; nobody has pointed to a fault of it; and no label must be given with an accept.
 * @param {Pick<HeldTicket, "ticket" | "rules" | "timeline" | "labelling">} held
 */
export function isCalm({ ticket, rules, timeline, labelling }) {
  const scored = timeline.scored();
  const suspects = timeline.suspectsBelow(LOW_SCORE); // whatever threshold the person has chosen for the marks
  return (
    ticket.kind === "verify" &&
    !ticket.needs_lead &&
    !ticket.rework &&
    !rules.pinned &&
    !labelling?.asks("accept") &&
    timeline.length <= MOST_FRAMES &&
    suspects.length === 0 &&
    timeline.presentCount === timeline.length &&
    scored !== null &&
    scored.mean >= LEAST_MEAN_SCORE
  );
}
