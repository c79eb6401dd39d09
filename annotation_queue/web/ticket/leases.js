// Leases: they are renewed while a person is here, end when the person goes away, and are taken up again on return.

/** @import { HeldTicket } from "../shared/held.js" */
import * as api from "../shared/api.js";
import { askToLogIn } from "./login.js";
import { hideNotice, message, notice, shownView } from "./messages.js";
import { presence } from "../shared/presence.js";
import { desk, player } from "./screen.js";
import { outbox, setReachable, untilAnswered } from "./sending.js";
import { session } from "../shared/session.js";
import { askAgain, takeNew, takeNext } from "./supply.js";

/** @type {number | undefined} */
let timer = undefined;
let views = 0; // how often the page has begun to show something else

session.on("view", () => views++);

/** @param {HeldTicket | null | undefined} held */
export async function renew(held) {
  if (!held || held.lost || held.finished) return;
  try {
    await api.heartbeat(held.ticket.ticket_id, held.ticket.lease_token);
    held.renewedAt = performance.now();
    setReachable(true);
  } catch (error) {
    if (error instanceof api.Unreachable) return setReachable(false);
    if (api.statusOf(error) === 401) return askToLogIn();
    held.lost = true;
    held.frames.close();
    if (held === session.current) leaseLost(held, whyLost(error));
    else session.emit("lost", { held, why: whyLost(error) });
  }
}

/** Renew every lease, also those of tickets with something left to send. */
export async function renewAll() {
  outbox.adopt().catch(() => {}); // tried again at the next beat
  if (!session.me || presence.away) return;
  await Promise.all(session.allHeld.map(renew));
  for (const { ticketId, token } of outbox.pending()) api.heartbeat(ticketId, token).catch(() => {});
}

/** Renew every lease from now on, in the interval that the queue asks for. */
export function beat() {
  clearTimeout(timer);
  timer = setTimeout(() => renewAll().finally(beat), 1000 * session.person.heartbeat_s);
}

// The network of this computer has changed: whether the queue answers is asked now, not at the next beat.
for (const change of ["online", "offline"]) addEventListener(change, renewAll);

/** How a lease ended: the queue says who took the ticket back. @param {unknown} error */
const whyLost = (error) =>
  error instanceof api.Refused && error.kind === "TakenBack"
    ? `${error.message.split(". ")[0]}.`
    : `Its lease of ${session.person.lease_s} s ran out while this page had no connection.`;

/**
 * @param {HeldTicket} held
 * @param {string} why
 */
function leaseLost(held, why) {
  player.play(false);
  session.leave();
  session.keepClaims();
  message({
    glyph: "⏳",
    title: "This ticket went back to the queue",
    text: `${why} Nothing that you sent is lost. Another person may have the ticket now.`,
    actions: [{ text: "Take the next one", run: takeNext, key: "Enter" }],
  });
  held.frames.close();
  desk.show(null);
}

session.on("refused", ({ item, error }) => {
  const held = session.current;
  if (!api.isLost(error) || item.what === "release" || !held || held.lost) return;
  if (held.ticket.ticket_id !== item.ticketId || held.ticket.lease_token !== item.token) return;
  held.lost = true;
  leaseLost(held, whyLost(error));
});

// The person is away: other people may have the tickets once their leases have ended.
presence.on("leave", () => {
  player.play(false);
  if (!session.me || session.allHeld.length === 0 || shownView() === "sheet") return; // the sheet has words of its own
  notice("Nobody has touched this page for a while: its tickets go back to the queue. What was done in them is kept. "
    + "Any key takes them up again.", { stays: true });
});

presence.on("return", async () => {
  if (!session.me || shownView() === "login") return;
  hideNotice();
  const { current: held, aside, ahead } = session;
  for (const each of held ? [ahead?.held, ...session.sheet] : session.waiting) renew(each);
  if (held === null) return askAgain();
  const at = player.position;
  held.pause();
  session.leave(); // nothing can be done in it before the queue says who has the ticket
  desk.show(null);
  message({ glyph: "…", title: "One moment", text: "Taking the ticket up again." });
  const before = [held, ...aside];
  const shown = views;
  const [again, ...others] = await Promise.all(before.map(takeUp));
  if (shownView() === "login") return;
  const turned = views !== shown || session.ahead !== ahead; // the person has turned to something else meanwhile
  const inUse = [session.current, session.ahead?.held];
  const later = [...(turned ? [again] : []), ...others].filter((each) => each !== null)
    .filter((each) => !each.finished && !inUse.includes(each));
  session.setAside([...later, ...session.aside.filter((each) => !before.includes(each))]);
  if (turned) return session.keepClaims();
  if (again === null) return leaseLost(held, "Nobody was at this page for a while, and its lease ran out.");
  session.show(again);
  player.play(false);
  player.seek(at);
});

/**
 * The ticket under its lease, or under a new one if no other person has it. Null if another person has it.
 * @param {HeldTicket} held
 */
async function takeUp(held) {
  const { ticket_id, lease_token } = held.ticket;
  if (held.readOnly) return held;
  try {
    await untilAnswered(() => api.heartbeat(ticket_id, lease_token));
    held.renewedAt = performance.now();
    return held;
  } catch (error) {
    if (api.statusOf(error) === 401) {
      askToLogIn();
      return null;
    }
  }
  held.frames.close();
  return takeNew({ ticket_id }).catch(() => null);
}
