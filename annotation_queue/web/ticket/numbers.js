// How many tickets of which kind wait, as the queue counts them.

/** @import { Count, Stats } from "../shared/types.js" */
/** @import { Side } from "../shared/session.js" */
import * as api from "../shared/api.js";
import { session } from "../shared/session.js";
import { NUMBERS } from "../shared/words.js";

/** @type {Stats | null} */
let last = null;
/** @type {Record<Side, number>} */
const barred = { verify: 0, track: 0 }; // tickets that wait, but not for this person

function counts() {
  const sum = (/** @type {(count: Count) => boolean} */ test) =>
    (last?.counts ?? []).filter(test).reduce((n, count) => n + count.tickets, 0);
  return {
    open: sum((c) => c.kind === "verify" && c.state === "open" && !c.needs_lead),
    leased: sum((c) => c.kind === "verify" && c.state === "leased"),
    lead: sum((c) => c.kind === "verify" && c.state === "open" && c.needs_lead),
    track: sum((c) => c.kind !== "verify" && c.state === "open"),
    tracking: sum((c) => c.kind !== "verify" && c.state === "leased"),
  };
}

export async function refreshStats() {
  try {
    last = await api.stats(session.project);
  } catch {
    return; // it is asked again soon
  }
  session.emit("stats");
}

/**
 * The queue gave this person a ticket of one side although they want the other one: the open tickets of the wanted
 * side are not for them.
 * @param {Side} given
 */
export function noteGiven(given) {
  const wanted = session.wantedKinds()[0] === "verify" ? "verify" : "track";
  const n = counts();
  if (given !== wanted) barred[wanted] = wanted === "verify" ? n.open : n.track;
  barred[given] = 0;
}

/**
 * Open tickets that this person may take, as far as the page knows; Infinity if it does not know how many.
 * @param {Side} side
 */
export const takeable = (side) =>
  !seesCounts() ? Infinity : side === "verify" ? counts().open - barred.verify : counts().track - barred.track;

/** Whether the queue tells this person how many tickets there are: gold is not counted, and must not show. */
const seesCounts = () => session.person.roles.some((role) => ["lead", "admin", "pipeline"].includes(role));

/** What is left to do, for the bar; for annotators and verifiers, what they did. */
export function leftToDo() {
  const n = counts();
  if (!seesCounts()) {
    const mine = last?.paces.find(({ person }) => person === session.person.name);
    return mine ? `${NUMBERS.format(mine.finished)} done in the last hour` : "";
  }
  if (!session.may.verify) return `${NUMBERS.format(n.track + n.tracking)} to correct`;
  const forLead = session.person.roles.includes("lead") ? n.lead : 0;
  return `${NUMBERS.format(Math.max(0, takeable("verify")) + n.leased + forLead)} to verify`;
}

/** What waits for other people, for a person who has nothing to do. */
export function waitingLines() {
  const n = counts();
  /** @type {[number, string][]} */
  const lines = [
    [session.may.verify ? n.open : 0, "waiting for another verifier"],
    [n.leased, "being verified"],
    [n.lead, "waiting for a lead"],
    [n.track, "waiting for an annotator"],
    [n.tracking, "being corrected"],
  ];
  return lines.filter(([count]) => count > 0).map(([count, text]) => `${NUMBERS.format(count)} ${text}`);
}
