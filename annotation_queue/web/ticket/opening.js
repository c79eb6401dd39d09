// A ticket that is opened to be looked at: one's own finished tickets, and any ticket for leads. And the links that open a
// ticket at a frame: /#ticket=…&frame=…

/** @import { HeldTicket } from "../shared/held.js" */
import * as api from "../shared/api.js";
import { goTo } from "./comments.js";
import { fail } from "./login.js";
import { notice, shownView } from "./messages.js";
import { desk } from "./screen.js";
import { untilAnswered } from "./sending.js";
import { session } from "../shared/session.js";
import { fetchNext, prepare, setAside, takeNext } from "./supply.js";

const ID = /^[A-Za-z0-9](?:\.?[A-Za-z0-9_:+@-])*$/; // as rules.ID_PATTERN

/**
 * The ticket and the frame that the page's address names, or null.
 * @returns {{ticketId: string, frame: number | null} | null}
 */
export function linked() {
  const named = new URLSearchParams(location.hash.slice(1));
  const ticketId = named.get("ticket") ?? "";
  const frame = named.get("frame") ?? "";
  return ID.test(ticketId) ? { ticketId, frame: /^\d{1,8}$/.test(frame) ? Number(frame) : null } : null;
}

/** Open the ticket that the address names. False if it names none, or if it cannot be opened. */
export async function openLinked() {
  const link = linked();
  return link !== null && openTicket(link.ticketId, link.frame);
}

/**
 * Put a ticket on screen: one's own to work on, any other to be looked at. False if that is not possible.
 * @param {string} ticketId
 * @param {number | null} [frame]  to begin with
 */
export async function openTicket(ticketId, frame = null) {
  try {
    const mine = session.heldFor(ticketId);
    if (mine && mine !== session.current) bring(mine);
    else if (!mine) show(await lookAt(ticketId));
    if (frame !== null) goTo(frame);
    return true;
  } catch (error) {
    fail(error);
    return false;
  }
}

/** @param {string} ticketId */
async function lookAt(ticketId) {
  const ticket = await untilAnswered(() => api.ticket(ticketId));
  return prepare(ticket, { claim_id: "" }, { readOnly: true });
}

/** @param {HeldTicket} held  is only looked at; what is on screen comes again after it */
function show(held) {
  leave();
  setAside();
  session.show(held);
  const { state, leased_by } = held.ticket;
  if (state === "leased" && leased_by === session.person.name) {
    notice("You hold this ticket in another tab: here it can only be looked at.");
  }
}

/** @param {HeldTicket} mine  that this person holds in this tab comes on screen now */
function bring(mine) {
  leave();
  desk.abandon();
  setAside();
  session.setAside(session.aside.filter((each) => each !== mine));
  session.show(mine);
  fetchNext();
}

/** A ticket that is only looked at leaves the screen. */
function leave() {
  const { current } = session;
  if (!current?.readOnly) return;
  current.frames.close();
  session.leave();
}

/** From looking back to working. */
export function backToWork() {
  leave();
  void takeNext();
}

// The address names a ticket only while that is on screen.
session.on("ticket", (held) => {
  const link = linked();
  if (link && link.ticketId !== held.ticket.ticket_id) history.replaceState(null, "", location.pathname);
});
addEventListener("hashchange", () => {
  if (session.me && shownView() !== "login") void openLinked();
});
