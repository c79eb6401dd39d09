// The way to the queue: what is kept until it is sent, whether the queue answers, and requests that wait until it does.

/** @import { Operation } from "../shared/types.js" */
/** @import { HeldTicket } from "../shared/held.js" */
import { Unreachable } from "../shared/api.js";
import { isAnswered } from "../shared/draft.js";
import { notice } from "./messages.js";
import { Outbox } from "./outbox.js";
import { session } from "../shared/session.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;

let reachable = true;

export const outbox = new Outbox({
  onchange: () => session.emit("saving"),
  onrefused: (item, error) => session.emit("refused", { item, error }),
  onanswer: (item, event) => session.emit("answer", { item, event }),
  onlogin: () => session.emit("loginEnded"),
  ontrouble: (text) => notice(text, { over: true }),
});

/** Whether the queue answered the last time. */
export const isReachable = () => reachable && !outbox.offline;

/** @param {boolean} now  whether the queue has answered */
export function setReachable(now) {
  if (reachable === now) return;
  reachable = now;
  session.emit("saving");
  if (now) outbox.flush();
}

/**
 * Ask until the queue answers. Throws what the queue refuses.
 * @template T
 * @param {() => Promise<T>} ask
 */
export async function untilAnswered(ask) {
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    try {
      const answer = await ask();
      setReachable(true);
      return answer;
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      setReachable(false);
      await pause(wait);
    }
  }
}

/** Wait, but not longer than until the network of this computer is back. @param {number} ms */
const pause = (ms) =>
  new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      done(undefined);
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
  });

/**
 * Keep an operation, and send it.
 * @param {HeldTicket} held
 * @param {Operation} operation
 */
export function sendOperation({ ticket }, operation) {
  const { operation_id, kind, frame_idx, payload, created_at } = operation;
  outbox.add({
    person: session.person.name,
    ticketId: ticket.ticket_id,
    token: ticket.lease_token,
    what: isAnswered(operation) || kind === "stop" ? "refine" : "operation",
    body: { operation_id, kind, frame_idx, payload: JSON.stringify(payload), created_at },
  });
}
