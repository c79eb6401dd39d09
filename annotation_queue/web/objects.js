// The other objects of the video: showing them, beginning a new one, and going from one to the next.

/** @import { VideoObject, Work } from "./work.js" */
import * as api from "./api.js";
import { $, replace } from "./dom.js";
import * as keys from "./keys.js";
import { lanes } from "./lanes.js";
import { fail } from "./login.js";
import { notice } from "./messages.js";
import { desk, player } from "./screen.js";
import { untilAnswered } from "./sending.js";
import { session } from "./session.js";
import { fetchNext, newClaim, prepare, setAside } from "./supply.js";
import { colour } from "./theme.js";

let opening = false;

/** Objects of the same video that this person has begun, apart from this one. @param {Work} work */
export const begunBeside = (work) =>
  session.waiting.filter(
    (each) => each.draft && !each.finished && !each.lost && each.ticket.video_id === work.ticket.video_id,
  );

export function toggleOthers() {
  player.showOthers = !player.showOthers;
  showOthers();
}

/** Show the other objects of the video, or hide them, as the person wants. */
export async function showOthers() {
  $("others").setAttribute("aria-pressed", String(player.showOthers));
  const work = session.current;
  if (work && player.showOthers) {
    work.otherTickets ??= await api.others(work.ticket.ticket_id).catch(() => null); // asked for again at the next call
    if (work !== session.current) return;
    const begun = begunBeside(work);
    const known = new Set(begun.map(({ ticket }) => ticket.masklet_id));
    work.others = [
      ...begun.flatMap((each) => (each.masklet ? [{ ...each.masklet, settled: null, work: each }] : [])),
      ...(work.otherTickets ?? []).filter(({ masklet_id }) => !known.has(masklet_id ?? null)),
    ];
    if (work.others.length === 0 && work.ticket.masklet_id) notice("Nothing else of this video is masked.");
    showLanes();
  }
  $("lanes").hidden = !(player.showOthers && work?.others?.length);
  player.refresh();
}

export function showLanes() {
  const work = session.current;
  if (work?.others) replace($("lanes"), ...lanes(work.others, work.timeline, colour, pick));
}

/**
 * @param {VideoObject} object
 * @param {number} position  where it begins
 */
function pick(object, position) {
  if (object.work) return switchTo(object.work);
  player.play(false);
  player.seek(position);
}

/** @param {Work} work  another object that this person holds; what is on screen is set aside as it is */
function switchTo(work) {
  const at = player.position;
  desk.abandon();
  setAside();
  const held = session.aside.filter((each) => each !== work);
  const ofVideo = held.filter(({ ticket }) => ticket.video_id === work.ticket.video_id);
  const [last, ...later] = ofVideo; // `last` was on screen: it comes after the others, so that the key goes around
  session.setAside([...later, last, ...held.filter((each) => !ofVideo.includes(each))]);
  session.show(work);
  player.seek(at);
  fetchNext();
}

/** Open a ticket for another object of this video. The person keeps the ticket on screen. */
export async function newObject() {
  const work = session.current;
  if (opening || !work) return;
  opening = true;
  const { ticket } = work;
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
  const [work] = session.current ? begunBeside(session.current) : [];
  if (work) switchTo(work);
  else notice(`You have begun no other object in this video. ${keys.hint("newObject")} begins one.`);
}
