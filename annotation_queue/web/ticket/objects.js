// The other objects of the video: showing them, beginning a new one, and going from one to the next.

/** @import { HeldTicket, VideoObject } from "../shared/held.js" */
import * as api from "../shared/api.js";
import { $, replace } from "../shared/dom.js";
import * as keys from "../shared/keys.js";
import { rowsOf } from "./others.js";
import { fail } from "./login.js";
import { notice } from "./messages.js";
import { desk, player } from "./screen.js";
import { untilAnswered } from "./sending.js";
import { session } from "../shared/session.js";
import { fetchNext, newClaim, prepare, setAside } from "./supply.js";
import { colour } from "../shared/theme.js";

let opening = false;

/** Objects of the same video that this person has begun, apart from this one. @param {HeldTicket} held */
export const begunBeside = (held) =>
  session.waiting.filter(
    (each) => each.draft && !each.finished && !each.lost && each.ticket.video_id === held.ticket.video_id,
  );

export function toggleOthers() {
  player.showOthers = !player.showOthers;
  showOthers();
}

/** Show the other objects of the video, or hide them, as the person wants. */
export async function showOthers() {
  $("others").setAttribute("aria-pressed", String(player.showOthers));
  const held = session.current;
  if (held && player.showOthers) {
    held.otherTickets ??= await api.others(held.ticket.ticket_id).catch(() => null); // asked for again at the next call
    if (held !== session.current) return;
    const begun = begunBeside(held);
    const known = new Set(begun.map(({ ticket }) => ticket.masklet_id));
    held.others = [
      ...begun.flatMap((each) => (each.masklet ? [{ ...each.masklet, settled: null, held: each }] : [])),
      ...(held.otherTickets ?? []).filter(({ masklet_id }) => !known.has(masklet_id ?? null)),
    ];
    if (held.others.length === 0 && held.otherTickets && held.ticket.masklet_id) notice("Nothing else of this video is masked.");
    showRows();
  }
  $("other-objects").hidden = !(player.showOthers && held?.others?.length);
  player.refresh();
}

export function showRows() {
  const held = session.current;
  if (held?.others) replace($("other-objects"), ...rowsOf(held.others, held.timeline, colour, pick));
}

/**
 * @param {VideoObject} object
 * @param {number} position  where it begins
 */
function pick(object, position) {
  if (object.held) return switchTo(object.held);
  player.play(false);
  player.seek(position);
}

/** @param {HeldTicket} held  another object that this person holds; what is on screen is set aside as it is */
function switchTo(held) {
  const at = player.position;
  desk.abandon();
  setAside();
  const aside = session.aside.filter((each) => each !== held);
  const ofVideo = aside.filter(({ ticket }) => ticket.video_id === held.ticket.video_id);
  // the first one was on screen, unless that was only looked at: it comes after the others, so that the key goes around
  session.setAside([...ofVideo.slice(1), ...ofVideo.slice(0, 1), ...aside.filter((each) => !ofVideo.includes(each))]);
  session.show(held);
  player.seek(at);
  fetchNext();
}

/** Open a ticket for another object of this video. The person keeps the ticket on screen. */
export async function newObject() {
  const held = session.current;
  if (opening || !held) return;
  opening = true;
  const { ticket } = held;
  const claim = newClaim({});
  try {
    const body = { token: ticket.lease_token, claim_id: claim.claim_id };
    const opened = await session.claiming(claim, () => untilAnswered(() => api.newObject(ticket.ticket_id, body)));
    const begun = await prepare(opened, claim);
    if (session.current?.ticket === ticket) switchTo(begun);
    else session.setAside([begun, ...session.aside]);
    const [submit, other] = [keys.hint("submit"), keys.hint("otherObject")];
    notice(`A new object: mask it, then ${submit} submits it. ${other} goes back to the other object.`);
  } catch (error) {
    fail(error);
  } finally {
    opening = false;
  }
}

/** Go to the next object of this video that this person has begun. */
export function otherObject() {
  const [held] = session.current ? begunBeside(session.current) : [];
  if (held) switchTo(held);
  else notice(`You have begun no other object in this video. ${keys.hint("newObject")} begins one.`);
}
