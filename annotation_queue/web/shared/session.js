// What a person does at this tab: who they are, the ticket on screen, the ticket fetched ahead, the tickets set aside.
//
// Owns every variable that the page's modules share. They change only through the methods below; modules that show
// something listen to the events. Knows nothing of the document, and sends no request.

import { Events } from "./events.js";
import { LOW_SCORE } from "./timeline.js";

/** @import { Claim, Kind, Me, OutboxItem, RefineEvent, Verdict } from "./types.js" */
/** @import { Refused } from "./api.js" */
/** @import { HeldTicket } from "./held.js" */

/** @typedef {"verify" | "track"} Side  to judge masklets, or to make and correct them (track and select tickets) */

/**
 * The ticket after the one on screen.
 * @typedef {object} Ahead
 * @property {Claim} claim
 * @property {HeldTicket | null} held  once it has arrived
 * @property {Promise<HeldTicket | null>} promise  null: the queue has no ticket
 */

/**
 * @typedef {object} SessionEvents
 * @property {HeldTicket} ticket  this ticket comes on screen
 * @property {undefined} choosing  a reason is to be chosen for a verdict, or no longer
 * @property {undefined} draft  the draft on screen has changed, or the tool
 * @property {undefined} doubt  another score is the threshold of suspect frames
 * @property {undefined} progress  another frame of a propagation has arrived
 * @property {string} view  the page shows a ticket, a message or the log-in
 * @property {undefined} zoom  the picture is shown larger, smaller or elsewhere
 * @property {{held: HeldTicket, why: string}} lost  the lease of a ticket that is not on screen alone is over
 * @property {undefined} theme  light or dark has changed
 * @property {undefined} stats  new counts of the queue's tickets
 * @property {undefined} playing  the video plays or pauses
 * @property {string} flash  this text lights up above the video
 * @property {number} finished  a verify ticket is answered, after this many seconds
 * @property {undefined} saving  something waits to be sent, is sent, or the connection has changed
 * @property {undefined} loginEnded  the queue asks for a login
 * @property {{item: OutboxItem, error: Refused}} refused  the queue does not accept what was sent
 * @property {{item: OutboxItem, event: RefineEvent}} answer  the model's answer to an operation
 */

const CLAIMS = "masklets.holds";
const PERSON = "masklets.person";
const PROJECT = "masklets.project";

/** @extends {Events<SessionEvents>} */
class Session extends Events {
  /** @type {Me | null} */ #me = null;
  /** @type {HeldTicket | null} */ #current = null;
  /** @type {Ahead | null} */ #ahead = null;
  /** @type {readonly HeldTicket[]} */ #aside = [];
  /** @type {readonly HeldTicket[]} */ #sheet = [];
  /** @type {Set<Claim>} */ #underWay = new Set();
  /** @type {Side | null} */ #side = null;
  /** @type {Side | null} */ #asked = null;
  /** @type {Verdict | null} */ #choosing = null;
  #lowScore = LOW_SCORE;
  leaving = false; // the person logs out, and the page is about to be loaded anew

  // --- the person ---

  /** Null before anybody has logged in. */
  get me() {
    return this.#me;
  }

  /** The person who has logged in; to be asked only after somebody has. */
  get person() {
    if (this.#me === null) throw new Error("nobody has logged in");
    return this.#me;
  }

  /**
   * Somebody has logged in. Claims that another person made at this tab are dropped.
   * @param {Me} me
   */
  logIn(me) {
    this.#me = me;
    const last = sessionStorage.getItem(PERSON);
    if (last !== null && last !== me.name) sessionStorage.removeItem(CLAIMS);
    sessionStorage.setItem(PERSON, me.name);
  }

  /** Which sides this person's roles permit. */
  get may() {
    const roles = this.person.roles;
    const lead = roles.includes("lead");
    return { verify: lead || roles.includes("verifier"), track: lead || roles.includes("annotator") };
  }

  // --- which kind of work is wanted ---

  /**
   * The kinds of tickets to claim, most wanted first. Verifying comes first unless the person chose to correct.
   * @returns {Kind[]}
   */
  wantedKinds() {
    /** @type {Kind[]} */
    const verify = this.may.verify ? ["verify"] : [];
    /** @type {Kind[]} */
    const track = this.may.track ? ["track", "select"] : [];
    return this.#side === "track" ? [...track, ...verify] : [...verify, ...track];
  }

  /** The project that the next tickets come from, as chosen in this browser; "": all that the person belongs to. */
  get project() {
    const chosen = localStorage.getItem(PROJECT) ?? "";
    return this.person.projects.includes(chosen) ? chosen : "";
  }

  set project(name) {
    localStorage.setItem(PROJECT, name);
  }

  /** What to ask the queue for. @returns {Omit<Claim, "claim_id">} */
  wanted() {
    return { kinds: this.wantedKinds(), ...(this.project ? { project: this.project } : {}) };
  }

  /** The side of the ticket on screen, or of the one that would come next. */
  get side() {
    if (this.#current) return sideOf(this.#current.ticket.kind);
    return this.#side ?? "verify";
  }

  /** The side that the person asked for with the button in the bar, until a ticket is shown. */
  get asked() {
    return this.#asked;
  }

  /** The person wants the other side. */
  switchSide() {
    this.#side = this.#asked = this.side === "verify" ? "track" : "verify";
  }

  /** The person is done with correcting for now. */
  backToVerifying() {
    if (this.#side === "track" && this.may.verify) this.#side = "verify";
  }

  /** A ticket is shown: what was asked for has been answered. */
  forgetAsked() {
    this.#asked = null;
  }

  // --- the tickets ---

  /** The ticket on screen, or null. */
  get current() {
    return this.#current;
  }

  /** The ticket after it, or null if none is fetched. */
  get ahead() {
    return this.#ahead;
  }

  /** Tickets that this person holds and that come on screen later, next one first. */
  get aside() {
    return this.#aside;
  }

  /** Tickets that are shown together on the sheet. */
  get sheet() {
    return this.#sheet;
  }

  /** All tickets that this person holds, apart from the one on screen. */
  get waiting() {
    return [...this.#sheet, ...(this.#ahead?.held ? [this.#ahead.held] : []), ...this.#aside];
  }

  /** All tickets that this person holds. */
  get allHeld() {
    return [...(this.#current ? [this.#current] : []), ...this.waiting];
  }

  /**
   * The ticket of this id, if this person holds it.
   * @param {string} ticketId
   */
  heldFor(ticketId) {
    return this.allHeld.find((held) => held.ticket.ticket_id === ticketId);
  }

  /**
   * Put this ticket on screen.
   * @param {HeldTicket} held
   */
  show(held) {
    this.#current = held;
    this.#choosing = null;
    this.keepClaims();
    this.emit("ticket", held);
  }

  /** Nothing is on screen now. */
  leave() {
    this.#current = null;
  }

  /**
   * Fetch the ticket after the one on screen.
   * @param {Claim} claim
   * @param {() => Promise<HeldTicket | null>} fetch  does not reject
   */
  fetchAhead(claim, fetch) {
    /** @type {Ahead} */
    const ahead = { claim, held: null, promise: Promise.resolve(null) };
    this.#ahead = ahead;
    this.keepClaims();
    ahead.promise = fetch().then((held) => (ahead.held = held));
    return ahead;
  }

  /** What was fetched ahead is taken, or not wanted any more. */
  dropAhead() {
    this.#ahead = null;
  }

  /** @param {readonly HeldTicket[]} held  replace the tickets that are set aside */
  setAside(held) {
    this.#aside = held;
  }

  /** @param {readonly HeldTicket[]} held  replace the tickets on the sheet */
  setSheet(held) {
    this.#sheet = held;
  }

  /** The next ticket that was set aside, which is taken out. */
  takeAside() {
    const [first, ...rest] = this.#aside;
    this.#aside = rest;
    return first ?? null;
  }

  /** Drop all tickets. */
  dropAll() {
    this.#current = this.#ahead = null;
    this.#aside = this.#sheet = [];
  }

  /**
   * The verdict that a reason is to be chosen for, or null.
   */
  get choosing() {
    return this.#choosing;
  }

  /** @param {Verdict | null} verdict */
  choose(verdict) {
    this.#choosing = verdict;
    this.emit("choosing");
  }

  /** A frame with a lower score is suspect. */
  get lowScore() {
    return this.#lowScore;
  }

  /** @param {number} score  the threshold that the person wants */
  doubtBelow(score) {
    this.#lowScore = score;
    this.emit("doubt");
  }

  // --- the claims, which a reload sends again: the same claim gives the same ticket ---

  /** The claims of this tab from before it was loaded. */
  keptClaims() {
    return /** @type {Claim[]} */ (JSON.parse(sessionStorage.getItem(CLAIMS) ?? "[]"));
  }

  /** Keep the claims of all tickets that are neither finished nor lost. */
  keepClaims() {
    const alive = (/** @type {HeldTicket | null} */ held) => (held && !held.finished && !held.lost ? [held.claim] : []);
    const claims = [
      ...alive(this.#current), ...this.#sheet.flatMap(alive), ...(this.#ahead ? [this.#ahead.claim] : []), ...this.#aside.flatMap(alive),
      ...this.#underWay,
    ];
    sessionStorage.setItem(CLAIMS, JSON.stringify([...new Set(claims)])); // one fetched ahead is under way, too
  }

  /**
   * Keep a claim while a request is under way that makes a lease of it, also when its answer gets lost.
   * @template T
   * @param {Claim} claim
   * @param {() => Promise<T>} ask
   */
  async claiming(claim, ask) {
    this.#underWay.add(claim);
    this.keepClaims();
    try {
      return await ask();
    } finally {
      this.#underWay.delete(claim);
    }
  }
}

/**
 * @param {Kind} kind
 * @returns {Side}
 */
export const sideOf = (kind) => (kind === "verify" ? "verify" : "track");

export const session = new Session();
