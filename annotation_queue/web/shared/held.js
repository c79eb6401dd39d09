// A ticket that this person holds, with everything that showing it needs.

/** @import { Progress } from "./progress.js" */
/** @import { Claim, FrameMask, Masklet, Ontology, Other, Rules, Ticket, VideoInfo } from "./types.js" */
import { Draft } from "./draft.js";
import { Frames } from "./frames.js";
import { Labelling } from "./labelling.js";
import { keepTime, presence, timeAt } from "./presence.js";
import { session, sideOf } from "./session.js";
import { Timeline } from "./timeline.js";
import { Watching } from "./watching.js";

/**
 * Another object of the video: settled or open, or one that this person has begun (`held`).
 * @typedef {Other & {held?: HeldTicket}} VideoObject
 */

export class HeldTicket {
  finished = false; // it has been answered, or given back
  lost = false; // its lease is over
  /** @type {"ticket" | "polygon" | null} */
  habit = "ticket"; // what the key that submits did last, if nothing else was done since: it brought this ticket, or closed a polygon
  readOnly = false; // it is only looked at: this person has finished it, or is a lead
  warned = false; // the person was told that frames are not masked, or that nothing has changed
  renewedAt = performance.now(); // when the lease was renewed last
  /** @type {Draft | null} */ draft = null; // null on verify tickets
  /** @type {Labelling | null} */ labelling = null; // null where objects get no labels
  /** @type {Map<string, FrameMask[]>} */ arriving = new Map(); // masks of unfinished answers to prompts, by operation
  /** @type {Progress | null} */ progress = null; // of the propagation that is under way
  /** @type {number | null} */ absentFrom = null; // as Desk.absentFrom, for the strip
  /** @type {VideoObject[] | null} */ others = null; // once they were asked for
  /** @type {Other[] | null} */ otherTickets = null; // of them, those that the queue has named
  /** @type {(operationIds: string[]) => void} */ cancel = () => {}; // the model need not answer these operations
  #spent; // ms on this ticket, before it came on screen
  #startedAt = 0; // on the clock of presence.js

  /**
   * @param {Ticket} ticket
   * @param {Claim} claim  a reload sends it again
   * @param {VideoInfo} info
   * @param {Masklet | null} masklet  null: there is none yet
   * @param {Ontology | null} [ontology]  of the labels that its object may get
   */
  constructor(ticket, claim, info, masklet, ontology = null) {
    const me = session.person;
    this.ticket = ticket;
    this.claim = claim;
    this.info = info;
    this.before = masklet; // as the ticket came
    this.masklet = masklet; // as it is now
    /** @type {Masklet | null} */ this.earlier = null; // before the correction that this ticket makes, or judges
    this.rules = /** @type {Rules} */ (JSON.parse(ticket.payload));
    this.live = me.live;
    this.watch = me.watch;
    this.person = me.name;
    this.side = sideOf(ticket.kind);
    this.timeline = new Timeline(masklet, info, me.stride, session.lowScore);
    this.frames = new Frames(ticket.video_id, this.timeline.frames);
    this.#spent = timeAt(me.name, ticket.ticket_id);
    this.watching = new Watching(`${me.name} ${ticket.ticket_id}`, this.timeline.present);
    if (this.side === "track") this.earlier = masklet;
    if (this.side === "track") this.draft = new Draft(ticket, masklet, info, this.timeline.frames);
    if (ontology) this.labelling = new Labelling(ticket, this.rules, ontology, masklet, this.draft);
  }

  /** Derive what is shown: from the draft, if there is one, and from the threshold of suspect frames. */
  redraw() {
    if (this.draft) this.masklet = this.draft.masklet();
    this.timeline = new Timeline(this.masklet, this.info, session.person.stride, session.lowScore);
  }

  /** The first position at which the object is present, or 0. */
  get firstPresent() {
    return Math.max(0, this.timeline.present.indexOf(true));
  }

  /** The position that the last verdict pointed to, or undefined. */
  get pinned() {
    const position = this.timeline.frames.indexOf(this.rules.pinned?.frame_idx ?? -1);
    return position < 0 ? undefined : position;
  }

  /** Whether a person began this object beside another one, and nothing was submitted yet. */
  get isNewObject() {
    return Boolean(this.rules.begun_by) && this.side === "track" && !this.ticket.masklet_id;
  }

  /** Whether nothing has been drawn in a new object, so that nothing tells another person which object is meant. */
  get isEmptyNewObject() {
    return this.isNewObject && this.draft?.done.length === 0;
  }

  /** Whether this ticket makes a correction, or judges one. */
  get isCorrection() {
    return Boolean(this.side === "track" || (this.before?.parent_id && this.before.phase !== "auto"));
  }

  /** ms of work on this ticket. */
  spent() {
    return this.#spent + (this === session.current ? presence.clock() - this.#startedAt : 0);
  }

  /** @param {number} ms  of work on this ticket, beside others on the sheet */
  work(ms) {
    this.#spent += ms;
  }

  /** It comes on screen. */
  begin() {
    this.#startedAt = presence.clock();
    this.frames.limit = this.timeline.length;
  }

  /** It leaves the screen, and comes again later. To be called while it is on screen. */
  pause() {
    this.keepTime();
    this.#spent = this.spent();
  }

  /** Keep the time for after a reload. */
  keepTime() {
    if (this.readOnly) return;
    keepTime(this.person, this.ticket.ticket_id, this.spent());
  }
}
