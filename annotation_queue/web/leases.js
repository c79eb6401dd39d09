// Leases: they are renewed while a person is here, end when the person goes away, and are taken up again on return.

/** @import { Work } from "./work.js" */
import * as api from "./api.js";
import { askToLogIn } from "./login.js";
import { hideNotice, message, notice, shownView } from "./messages.js";
import { presence } from "./presence.js";
import { desk, player } from "./screen.js";
import { outbox, setReachable, untilAnswered } from "./sending.js";
import { session } from "./session.js";
import { askAgain, newClaim, take, takeNext } from "./supply.js";

/** @type {number | undefined} */
let timer = undefined;

/** @param {Work | null | undefined} work */
export async function renew(work) {
  if (!work || work.lost || work.finished) return;
  try {
    await api.heartbeat(work.ticket.ticket_id, work.ticket.lease_token);
    work.renewedAt = performance.now();
    setReachable(true);
  } catch (error) {
    if (error instanceof api.Unreachable) return setReachable(false);
    if (api.statusOf(error) === 401) return askToLogIn();
    work.lost = true;
    work.frames.close();
    if (work === session.current) leaseLost(work, outOfReach());
  }
}

/** Renew every lease, also those of tickets with something left to send. */
export async function renewAll() {
  outbox.adopt().catch(() => {}); // tried again at the next beat
  if (!session.me || presence.away) return;
  await Promise.all(session.held.map(renew));
  for (const { ticketId, token } of outbox.pending()) api.heartbeat(ticketId, token).catch(() => {});
}

/** Renew every lease from now on, in the interval that the queue asks for. */
export function beat() {
  clearTimeout(timer);
  timer = setTimeout(() => renewAll().finally(beat), 1000 * session.person.heartbeat_s);
}

const outOfReach = () => `Its lease of ${session.person.lease_s} s ran out while this page had no connection.`;

/**
 * @param {Work} work
 * @param {string} why
 */
function leaseLost(work, why) {
  player.play(false);
  session.leave();
  session.keepClaims();
  message({
    glyph: "⏳",
    title: "This ticket went back to the queue",
    text: `${why} Nothing that you sent is lost. Another person may have the ticket now.`,
    actions: [{ text: "Take the next one", run: takeNext, key: "Enter" }],
  });
  work.frames.close();
  desk.show(null);
}

session.on("refused", ({ item, error }) => {
  const work = session.current;
  if (error.kind !== "LeaseLost" || item.what === "release" || !work || work.lost) return;
  if (work.ticket.ticket_id !== item.ticketId || work.ticket.lease_token !== item.token) return;
  work.lost = true;
  leaseLost(work, outOfReach());
});

// The person is away: other people may have the tickets once their leases have ended.
presence.on("leave", () => {
  player.play(false);
  if (!session.me || session.held.length === 0) return;
  notice("Nobody has touched this page for a while: its tickets go back to the queue. What was done in them is kept. "
    + "Any key takes them up again.", true);
});

presence.on("return", async () => {
  if (!session.me || shownView() === "login") return;
  hideNotice();
  renew(session.ahead?.work);
  const { current: work, aside } = session;
  if (work === null) return askAgain();
  const at = player.position;
  work.pause();
  session.leave(); // nothing can be done in it before the queue says who has the ticket
  desk.show(null);
  message({ glyph: "…", title: "One moment", text: "Taking the ticket up again." });
  const [again, ...others] = await Promise.all([work, ...aside].map(takeUp));
  if (shownView() === "login") return;
  if (session.aside === aside) session.setAside(others.filter((other) => other !== null));
  if (again === null) return leaseLost(work, "Nobody was at this page for a while, and its lease ran out.");
  session.show(again);
  player.play(false);
  player.seek(at);
});

/**
 * The work under its lease, or under a new one if no other person has its ticket. Null if another person has it.
 * @param {Work} work
 */
async function takeUp(work) {
  const { ticket_id, lease_token } = work.ticket;
  try {
    await untilAnswered(() => api.heartbeat(ticket_id, lease_token));
    work.renewedAt = performance.now();
    return work;
  } catch (error) {
    if (api.statusOf(error) === 401) {
      askToLogIn();
      return null;
    }
  }
  work.frames.close();
  return take(newClaim({ ticket_id })).catch(() => null);
}
