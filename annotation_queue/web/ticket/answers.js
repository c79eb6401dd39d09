// What a person answers to a ticket: verdicts, submitting, taking the last answer back, putting a ticket back; and
// what becomes of an answer that the queue refuses.

/** @import { Reason, Submission, Verdict } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
import * as api from "../shared/api.js";
import * as keys from "../shared/keys.js";
import { lacksLabel } from "./labels.js";
import { fail } from "./login.js";
import { flash, message, notice, shownView } from "./messages.js";
import { desk } from "./screen.js";
import { outbox, untilAnswered } from "./sending.js";
import { session } from "../shared/session.js";
import { giveBack, newClaim, prepare, showInstead, submit, takeNew, takeNext } from "./supply.js";
import { many, VERDICTS } from "../shared/words.js";

let takingBack = false;

/** @param {Verdict | null} verdict */
const titleOf = (verdict) => VERDICTS.find((each) => each.verdict === verdict)?.title ?? "Submitted";

/** @param {Verdict} verdict  of the ticket on screen; for a rejection, a reason is asked for first */
export function answer(verdict) {
  const held = session.current;
  if (!held || held.lost) return;
  if (held.side === "track" && verdict !== "reject") return;
  if (verdict === "unsure" && held.ticket.needs_lead) return notice("This ticket came to a lead already: you decide.");
  if (verdict === "reject") return why(verdict);
  decide(verdict, []);
}

/** @param {Verdict} verdict  whose reason is asked for */
export function why(verdict) {
  if (hasWatched(verdict)) session.choose(verdict);
}

/**
 * Whether enough of the masklet on screen was seen for this verdict. If not, the person is told what is missing.
 * @param {Verdict} verdict
 */
function hasWatched(verdict) {
  const held = session.current;
  if (held?.side !== "verify") return true;
  const text = toWatch(held, verdict);
  if (text) notice(text, { until: () => toWatch(held, verdict) === "" });
  return text === "";
}

/**
 * What must be watched before this verdict, as a sentence; "" if enough was.
 * @param {HeldTicket} held
 * @param {Verdict} verdict
 */
export function toWatch({ watching, watch }, verdict) {
  const missing = watching.missing(verdict, watch);
  if (missing === 0) return "";
  return `Watch ${many(missing, "more frame")} before you ${verdict === "unsure" ? "decide" : verdict}: `
    + `${watching.seen} of the ${many(watching.frames, "frame")} with the object were on screen.`;
}

/**
 * @param {Verdict} verdict
 * @param {Reason[]} reasons
 * @param {Pick<Submission, "text" | "same_as">} [more]  beside the reasons
 */
export function decide(verdict, reasons, more = {}) {
  if (!session.current || !hasWatched(verdict) || lacksLabel(session.current, verdict)) return;
  finish(session.current, { verdict, reasons, ...more });
  flash(verdict, titleOf(verdict));
  takeNext();
}

/** Submit the masklet as it is now. What looks like a mistake needs a second call. */
export function submitMasklet() {
  const held = session.current;
  if (!held?.draft) return;
  const { draft } = held;
  const half = desk.absentFrom !== null ? "absent" : desk.from !== null ? "stretch" : null;
  if (half) return notice(`A stretch has no last frame yet. ${keys.hint(half)} marks it, Esc drops the stretch.`);
  if (held.habit === "ticket") {
    return notice("This is the next ticket, and nothing was pressed in it yet. Look at it before you submit it.");
  }
  if (held.habit === "polygon") {
    held.habit = null;
    return notice(`The polygon is closed, and nothing is submitted yet. ${keys.hint("submit")} again submits.`);
  }
  if (draft.waiting().length) return notice("The model is still working: wait for it, or stop it with Esc.");
  if (draft.stopping().length) return notice("The last masks of the propagation are on their way. Try again in a moment.");
  if (!held.masklet?.area_px.some(Boolean)) {
    return notice(`There is no mask yet. ${keys.hint("reject")} rejects the ticket if there is no object to mask.`);
  }
  if (lacksLabel(held, null)) return;
  const unmasked = draft.unmasked().length;
  const again = keys.hint("submit");
  const unchanged = draft.done.length === 0 && draft.base !== null;
  if (!held.warned && (unmasked || unchanged)) {
    held.warned = true;
    return notice(unmasked
      ? `${many(unmasked, "frame")} never masked: they will count as absent. ${again} again submits.`
      : `Nothing was changed. ${again} again submits the masklet as it was.`);
  }
  finish(held, { last_operation_id: draft.lastOperationId }); // the queue builds the same masklet from its log
  flash("accept", "Submitted");
  takeNext();
}

/**
 * @param {HeldTicket} held  on screen
 * @param {Pick<Submission, "verdict" | "last_operation_id" | "text" | "same_as"> & Partial<Pick<Submission, "reasons">>} answer
 * @param {number} [position]  that was on screen
 */
export function finish(held, answer, position) {
  const seconds = submit(held, answer, position);
  held.finished = true;
  if (held.side === "verify") session.emit("finished", seconds);
  session.keepClaims();
  held.frames.close();
}

/**
 * Take back the last answer, if nobody has used it yet. What is on screen comes after it.
 * @param {() => void} [begin]  called once there is an answer to take back
 */
export async function takeBack(begin = () => {}) {
  if (takingBack) return;
  takingBack = true;
  try {
    if (outbox.pending().some((item) => item.what === "finish")) {
      const isSent = () => !outbox.pending().some((item) => item.what === "finish");
      return notice("The last answer is still being sent. Try again in a moment.", { until: isSent });
    }
    const [last] = await api.recent();
    if (!last) return notice("There is no answer to take back.");
    begin();
    const claim = newClaim({}); // its id is that of the operation, so that a reload takes up the lease that this gives
    const operation = { operation_id: claim.claim_id, created_at: new Date().toISOString() };
    const ticket = await session.claiming(claim, () => untilAnswered(() => api.unsubmit(last.ticket_id, operation)));
    showInstead(await prepare(ticket, claim));
    notice(`Taken back: ${titleOf(last.verdict)}.`, { over: true });
  } catch (error) {
    fail(error);
  } finally {
    takingBack = false;
  }
}

/** Give the ticket on screen back to the queue. Until another person has it, it can be taken up again. */
export function leaveTicket() {
  const held = session.current;
  if (!held || held.side !== "track") return;
  const empty = held.isEmptyNewObject;
  desk.show(null);
  giveBack(held);
  if (empty) return takeNext();
  session.backToVerifying();
  const undo = () => takeAgain(held);
  message({
    glyph: "↩",
    title: "The ticket is back in the queue",
    text: "What you did in it is kept: the next person continues from there. Undo takes it up again.",
    actions: [
      { text: "Take the next one", run: takeNext, key: "Enter" },
      { text: "Undo", run: undo, key: keys.hint("unsubmit") },
    ],
    back: undo,
  });
  session.leave();
  session.keepClaims();
}

/** @param {HeldTicket} left  a ticket that was given back: take it up again, unless another person has it by now */
async function takeAgain(left) {
  if (takingBack) return;
  takingBack = true;
  const { ticket_id } = left.ticket;
  try {
    await outbox.empty(ticket_id); // the queue must have got it back before
    const again = await takeNew({ ticket_id });
    if (again) return showAgain(again);
    if (session.current === null) await takeNext();
    notice("Another person has that ticket now.");
  } catch (error) {
    if (session.current === null) await takeNext();
    fail(error);
  } finally {
    takingBack = false;
  }
}

/** @param {HeldTicket} again  comes on screen, or after what the person has turned to since they asked for it */
function showAgain(again) {
  if (session.current === null && shownView() !== "sheet") return showInstead(again);
  session.setAside([again, ...session.aside]);
  session.keepClaims();
  notice("You have the ticket again that you had left. It comes later.", { over: true });
}

/** Switch between verifying and correcting. All tickets that this person holds go back to the queue. */
export function switchSide() {
  session.switchSide();
  startAgain();
}

/** Give back all tickets that this person holds, and take what they want now. */
export function startAgain() {
  for (const held of session.allHeld) giveBack(held);
  session.setAside([]);
  session.dropAhead();
  takeNext();
}

session.on("refused", ({ item, error }) => {
  if (item.what === "release") return; // the lease had ended already
  if (item.what === "comment") return; // comments.js tells
  const what = item.what === "finish" ? "One answer" : "One change";
  if (api.isLost(error)) {
    return notice(`${what} came after its lease had ended: it is kept for you under “Kept work”.`, { over: true });
  }
  notice(`${what} was refused: ${error.message}`, { over: true });
  const held = session.heldFor(item.ticketId);
  if (!held || item.what === "finish") return;
  held.draft?.refuse(item.body.operation_id);
  held.labelling?.refuse(item.body.operation_id);
  if (held === session.current) session.emit("draft");
});
