// Getting tickets and giving them back: the next ticket is fetched while the person is still at this one.

/** @import { Claim, OutboxItem, Rules, SentOperation, Submission, Ticket } from "../shared/types.js" */
import * as api from "../shared/api.js";
import { messageOf } from "../shared/dom.js";
import { askToLogIn, fail } from "./login.js";
import { isMessage, message, notice, shownView, waits } from "./messages.js";
import { refreshStats, waitingLines } from "./numbers.js";
import { forgetTime, presence } from "../shared/presence.js";
import { desk, player, strip } from "./screen.js";
import { outbox, sendOperation, setReachable, untilAnswered } from "./sending.js";
import { session } from "../shared/session.js";
import { HeldTicket } from "../shared/held.js";

const SLOW_MS = 400; // a wait that is longer than this is told to the person
const FETCHING = { glyph: "…", title: "One moment", text: "Fetching the next ticket." };
const POLL_MS = 4000; // between two questions for a ticket while there is none
const FIRST_FRAMES = 4; // fetched before a ticket is on screen
const LABELS = ["label", "undo", "redo"]; // kinds of operations in verify tickets

/** @type {number | undefined} */
let poll = undefined;

/** @type {(wanted: Omit<Claim, "claim_id">) => Claim} */
export const newClaim = (wanted) => ({ claim_id: api.newId(), ...wanted });

/**
 * Claim a ticket and prepare it. Null if the queue has none for this person.
 * @param {Claim} claim
 */
export async function take(claim) {
  const ticket = await untilAnswered(() => api.claim(claim));
  return ticket && prepare(ticket, claim);
}

/**
 * Claim a ticket of this kind, and prepare it. A reload in between takes up the claim. Null as for `take`.
 * @param {Omit<Claim, "claim_id">} wanted
 */
export function takeNew(wanted) {
  const claim = newClaim(wanted);
  return session.claiming(claim, () => take(claim));
}

/**
 * Fetch everything that showing a ticket needs. Its first frames are on their way when this returns.
 * @param {Ticket} ticket
 * @param {Claim} claim
 * @param {{readOnly?: boolean}} [how]  readOnly: it is only looked at, and nothing is sent for it but comments
 */
export async function prepare(ticket, claim, { readOnly = false } = {}) {
  const id = ticket.ticket_id;
  const corrects = ticket.kind !== "verify";
  const version = /** @type {Rules} */ (JSON.parse(ticket.payload)).ontology;
  const { live } = session.person;
  // without what was done under an earlier lease: the queue keeps that beside the ticket, where it does not count
  const unsent = () => outbox.of(id).filter(({ token }) => token === ticket.lease_token);
  const queued = unsent(); // read before the requests below: an item sent between the two reads would be missing in both
  const [info, masklet, before, versions, ontology] = await Promise.all([
    untilAnswered(() => api.video(ticket.video_id)),
    ticket.masklet_id ? untilAnswered(() => api.masklet(id)) : null,
    corrects || version ? untilAnswered(() => api.operationsOf(id)) : [],
    corrects && live ? untilAnswered(() => api.versions(id)) : [],
    version ? untilAnswered(() => api.ontology(version)) : null,
  ]);
  const held = new HeldTicket(ticket, claim, info, masklet, ontology);
  held.readOnly = held.finished = readOnly;
  held.frames.limit = Math.min(FIRST_FRAMES, held.timeline.length);
  held.frames.ontrouble = frameTrouble;
  held.frames.want(0);
  const { draft } = held;
  if (!draft) {
    if (held.isCorrection) fetchEarlier(held);
    // leads are told of everybody's operations; a verifier's label is their own
    const own = readOnly ? before : before.filter(({ person }) => person === session.person.name);
    const done = [...own, ...queued, ...unsent()].flatMap((each) => ("what" in each ? operationOf(each) : each));
    for (const each of done) if (LABELS.includes(each.kind)) held.labelling?.add({ ...each, payload: JSON.parse(each.payload) });
    return held;
  }
  held.cancel = (operationIds) => outbox.cancel(id, operationIds);
  for (const version of versions) draft.versions.set(version.operation_id, version);
  for (const operation of before) {
    const payload = JSON.parse(operation.payload);
    if (!["submit", "unsubmit", "verdict"].includes(operation.kind) || payload.masks) draft.add({ ...operation, payload });
  }
  for (const body of [...queued, ...unsent()].flatMap(operationOf)) {
    draft.add({ ...body, payload: JSON.parse(body.payload) });
  }
  held.redraw();
  if (readOnly) return held;
  if (live) api.warm(id, ticket.lease_token, held.timeline.frames[held.firstPresent]).catch(() => {}); // saves time only
  const sent = new Set(unsent().map(({ body }) => (body && "operation_id" in body ? body.operation_id : "")));
  for (const operation of [...draft.waiting(), ...draft.stopping()]) {
    // the answer got lost with a tab or a server: ask the model again
    if (!sent.has(operation.operation_id)) sendOperation(held, operation);
  }
  return held;
}

/** @param {HeldTicket} held  which judges a correction: fetch what was corrected, to compare with */
async function fetchEarlier(held) {
  held.earlier = await untilAnswered(() => api.before(held.ticket.ticket_id)).catch(() => null);
  if (held === session.current) player.refresh();
}
/** The operation that waits to be sent, if it is one. @type {(item: OutboxItem) => SentOperation[]} */
const operationOf = ({ what, body }) => (what === "operation" || what === "refine" ? [body] : []);

/** @param {unknown} error  null: a frame has come */
function frameTrouble(error) {
  if (error === null || error instanceof api.Unreachable) return setReachable(error === null);
  if (api.statusOf(error) === 401) return askToLogIn();
  notice(`A frame cannot be shown: ${messageOf(error)}`);
}

/** Fetch the ticket after the one on screen: what was set aside, or else another ticket. */
export function fetchNext() {
  const aside = session.takeAside();
  const claim = aside?.claim ?? newClaim(session.wanted());
  const ahead = session.fetchAhead(claim, async () => {
    try {
      return aside ?? (await session.claiming(claim, () => take(claim)));
    } catch (error) {
      // with nothing on screen, `takeNext` asks once more and shows a refusal
      if (api.statusOf(error) !== 403 || session.current !== null) fail(error);
      return null;
    }
  });
  ahead.promise.then((held) => {
    if (session.ahead !== ahead && held) giveBackUnseen(held);
  });
  return ahead;
}

/** @type {() => boolean} */
let instead = () => false;

/** @param {() => boolean} show  shows something else than one ticket when the next one is due; whether it did */
export function insteadOfNext(show) {
  instead = show;
}

/** Put the next ticket on screen. It is here already, unless the queue is slow. */
export async function takeNext() {
  clearTimeout(poll);
  session.leave();
  desk.show(null);
  if (instead()) return;
  if (session.wantedKinds().length === 0) return nothingLeft();
  const ahead = session.ahead ?? fetchNext();
  const slow = setTimeout(() => ahead === session.ahead && message(FETCHING), SLOW_MS);
  let held = await ahead.promise;
  if (ahead !== session.ahead) return clearTimeout(slow);
  /** @type {unknown} */
  let refusal = null;
  if (held === null || held.lost) {
    // tickets may have come since
    held = session.takeAside() ?? (await takeNew(session.wanted()).catch((error) => {
      refusal = error;
      return null;
    }));
  }
  clearTimeout(slow);
  if (ahead !== session.ahead) return held && giveBackUnseen(held);
  session.dropAhead();
  if (refusal) return noTicket(refusal);
  if (held === null) return nothingLeft();
  session.show(held);
  fetchNext();
}

/** @param {HeldTicket} held  is shown now; what is on screen comes again after it */
export function showInstead(held) {
  setAside();
  session.show(held);
  fetchNext();
}

/** What is on screen, and what was fetched ahead, come again after the ticket that is shown instead. */
export function setAside() {
  const { ahead, aside } = session;
  const looked = session.current?.readOnly ? session.current : null;
  looked?.frames.close();
  const current = looked ? null : session.current;
  if (current) {
    current.pause();
    current.frames.rest();
  }
  session.setAside([...(current ? [current] : []), ...aside, ...(ahead?.held ? [ahead.held] : [])]);
  session.dropAhead();
}

/** @param {HeldTicket} held  goes back to the queue; if the message does not arrive, its lease runs out */
export function giveBack(held) {
  if (held.finished || held.lost) return;
  if (held.isEmptyNewObject) {
    submit(held, { verdict: "reject", reasons: ["other"] });
  } else {
    const { ticket_id: ticketId, lease_token: token } = held.ticket;
    // the ticket goes back at once: the model is asked again for the next person
    held.cancel(held.draft?.waiting().map(({ operation_id }) => operation_id) ?? []);
    // through the outbox, so that it comes after the operations
    outbox.add({ person: session.person.name, ticketId, token, what: "release", body: null });
  }
  held.finished = true;
  held.frames.close();
}

/** @param {HeldTicket} held  has come too late: something else is shown instead */
function giveBackUnseen(held) {
  giveBack(held);
  session.keepClaims();
}

/**
 * Send the answer to a ticket. Returns the seconds that the work took.
 * @param {HeldTicket} held
 * @param {Pick<Submission, "verdict" | "last_operation_id" | "text" | "same_as"> & Partial<Pick<Submission, "reasons">>} answer
 * @param {number} [position]  that was on screen
 */
export function submit(held, answer, position = player.shown) {
  const seconds = held.spent() / 1000;
  const { name } = session.person;
  forgetTime(name, held.ticket.ticket_id);
  outbox.add({
    person: name,
    ticketId: held.ticket.ticket_id,
    token: held.ticket.lease_token,
    what: "finish",
    body: {
      operation_id: api.newId(),
      created_at: new Date().toISOString(),
      reasons: [],
      ...answer,
      frame_idx: held.timeline.frames[Math.max(0, position)],
      seconds: Math.round(seconds * 100) / 100,
      watched: held.watching.share,
    },
  });
  return seconds;
}

// --- without a ticket ------------------------------------------------------------------------------------------------

async function nothingLeft() {
  session.keepClaims();
  clearScreen();
  const before = shownView();
  await refreshStats();
  if (session.current !== null || shownView() !== before) return; // the person has opened something meanwhile
  sayNothingLeft();
  askLater();
}

function clearScreen() {
  player.show(null);
  strip.show(null);
}

function sayNothingLeft() {
  const { verify, track } = session.may;
  const none = !verify && !track;
  const admin = session.person.roles.includes("admin");
  message({
    glyph: "✓",
    title: none ? "No tickets for your roles" : verify ? "Nothing left to verify" : "Nothing left to correct",
    text: none
      ? admin
        ? "You manage people, whom “Figures” above shows. To work on tickets, your account needs another role, which "
          + "another admin or the command “masklets users add” gives it."
        : "An admin gives you the role of an annotator or a verifier."
      : "Every ticket that you may take is done, or another person holds it. New ones appear here by themselves.",
    counts: waitingLines(),
    waits: "nothingLeft",
  });
}

session.on("stats", () => {
  if (waits() === "nothingLeft" && isMessage() && session.current === null) sayNothingLeft();
});

/** @param {unknown} error  the queue refuses a claim: for now, such as in a warm-up without gold, or for good */
function noTicket(error) {
  session.keepClaims();
  if (api.statusOf(error) === 401) return askToLogIn();
  const mayChange = api.statusOf(error) === 403;
  clearScreen();
  message({
    glyph: "–",
    title: "No ticket for you now",
    text: messageOf(error),
    actions: mayChange ? [] : [{ text: "Try again", run: takeNext, key: "Enter" }],
    waits: mayChange ? "noTicket" : undefined,
  });
  if (mayChange) askLater();
}

function askLater() {
  stopAsking();
  poll = setTimeout(askAgain, POLL_MS);
}

/** Ask the queue for a ticket if the page shows that there was none. */
export function askAgain() {
  if (!waits() || !isMessage() || session.current !== null || presence.away) return;
  session.dropAhead();
  takeNext();
}

export function stopAsking() {
  clearTimeout(poll);
}
