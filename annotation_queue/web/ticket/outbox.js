// What a person did, on its way to the queue. It is written to the browser's database before it is sent, and sent until
// the queue has it, in order for each ticket. A closed tab, a crash or a lost connection therefore loses nothing, and
// because ids are made here, sending twice is harmless. A tab sends its own items; once it is closed, another one does.

/** @import { OutboxItem, Parcel, RefineEvent } from "../shared/types.js" */
import { comment, finish, newId, operations, refine, Refused, release, statusOf, Unreachable } from "../shared/api.js";
import { nameOfError } from "../shared/dom.js";
import { onceGone, thisTab, whileGone } from "./tabs.js";

const WAITS = [500, 1000, 2000, 4000, 8000]; // ms before the next try, by the number of failures
const AGAIN = [401, 429]; // refusals after which an item is sent again

/**
 * @template T
 * @param {IDBRequest<T>} asked
 * @returns {Promise<T>}
 */
function request(asked) {
  return new Promise((done, failed) => {
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => failed(asked.error);
  });
}

/**
 * @typedef {object} Listeners
 * @property {() => void} onchange  items were added, sent or stored, or the connection has changed
 * @property {(item: OutboxItem, error: Refused) => void} onrefused  the queue will not take an item
 * @property {(item: OutboxItem, event: RefineEvent) => void} onanswer  the model's answer
 * @property {() => void} onlogin  the queue asks for a login
 * @property {(text: string) => void} ontrouble  this browser cannot store what is done
 */

export class Outbox {
  /** @type {OutboxItem[]} */ #items = [];
  /** @type {Map<string, {item: OutboxItem, aborter: AbortController}>} */ #sending = new Map(); // what is sent now, by ticket
  /** @type {IDBDatabase | null} */ #database = null;
  /** @type {string | undefined} */ #tab = undefined;
  /** @type {string | undefined} */ #person = undefined;
  /** @type {number | undefined} */ #timer = undefined;
  #offline = false;
  #failures = 0;
  #count = 0;
  #on;

  /** @param {Listeners} listeners */
  constructor(listeners) {
    this.#on = listeners;
    addEventListener("online", () => this.flush());
  }

  /** Whether the last request got no answer. */
  get offline() {
    return this.#offline;
  }

  /** Open the browser's database and take over what is left there. */
  async open() {
    const asked = indexedDB.open("masklets", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("outbox", { keyPath: "id" });
    this.#database = await request(asked);
    this.#tab = await thisTab();
    await this.#take(this.#tab);
    await this.adopt();
  }

  /** Take over the items of tabs that are closed. */
  async adopt() {
    if (!this.#database) return;
    /** @type {OutboxItem[]} */
    const kept = await request(this.#database.transaction("outbox").objectStore("outbox").getAll());
    const others = new Set(kept.map((item) => item.tab ?? "").filter((tab) => tab !== this.#tab));
    await Promise.all([...others].map(async (tab) => {
      const taken = await whileGone(tab, () => this.#take(tab));
      if (!taken) onceGone(tab, () => this.#take(tab).then(() => this.flush()));
    }));
  }

  /** @param {string} tab  whose items become this tab's */
  async #take(tab) {
    /** @type {OutboxItem[]} */
    const taken = [];
    await this.#write((store) => {
      const all = store.getAll();
      all.onsuccess = () => {
        for (const item of all.result.filter((each) => (each.tab ?? "") === tab)) {
          store.put(Object.assign(item, { tab: this.#tab }));
          taken.push(Object.assign(item, { stored: true }));
        }
      };
    });
    const known = new Set(this.#items.map(({ id }) => id));
    this.#items = [...this.#items, ...taken.filter(({ id }) => !known.has(id))].sort((a, b) => a.at - b.at);
  }

  /**
   * Resolves once the change is on disk.
   * @param {(store: IDBObjectStore) => void} change
   */
  async #write(change) {
    if (!this.#database) throw new DOMException("no database", "InvalidStateError");
    const transaction = this.#database.transaction("outbox", "readwrite", { durability: "strict" });
    change(transaction.objectStore("outbox"));
    await new Promise((done, failed) => {
      transaction.oncomplete = done;
      transaction.onabort = transaction.onerror = () => failed(transaction.error);
    });
  }

  /** @param {Parcel} parcel  to store, and then to send */
  async add(parcel) {
    const at = Date.now() * 1000 + (this.#count++ % 1000);
    /** @type {OutboxItem} */
    const item = { id: newId(), at, tab: this.#tab, ...parcel };
    this.#items.push(item);
    this.#on.onchange();
    try {
      await this.#write((store) => store.put(item));
    } catch (error) {
      this.#on.ontrouble(`This browser cannot keep what you do (${nameOfError(error)}): stay online until it says Saved.`);
    }
    item.stored = true;
    this.flush();
  }

  /** @param {OutboxItem} item  the queue has it, or has refused it */
  async #drop(item) {
    this.#items = this.#items.filter((other) => other !== item);
    this.#on.onchange();
    await this.#write((store) => store.delete(item.id)).catch(() => {}); // sending it again is harmless
  }

  /** @param {string} person  has logged in: send their items; those of other people wait for their login */
  sendFor(person) {
    this.#person = person;
    this.flush();
  }

  /** Items that the queue does not have: of the person who has logged in, or of everybody before a login. */
  pending() {
    const theirs = (/** @type {OutboxItem} */ item) => this.#person === undefined || item.person === this.#person;
    return this.#items.filter((item) => theirs(item) && !item.kept && item.what !== "release");
  }

  /** @param {string} ticketId */
  of(ticketId) {
    return this.#items.filter((item) => item.person === this.#person && item.ticketId === ticketId);
  }

  /**
   * Nobody waits for the model's answer to these operations any more. The queue still gets the operations.
   * @param {string} ticketId
   * @param {string[]} operationIds
   */
  cancel(ticketId, operationIds) {
    for (const item of this.of(ticketId)) {
      if (item.what !== "refine" || !operationIds.includes(item.body.operation_id)) continue;
      const underWay = this.#sending.get(ticketId);
      const sending = underWay?.item === item;
      item.cancelled = true;
      if (!sending || !item.kept) Object.assign(item, { what: "operation" });
      if (sending) underWay.aborter.abort("cancelled");
    }
  }

  /**
   * Wait until everything has been sent, for a while. True if it has.
   * @param {number} patienceMs
   */
  async settled(patienceMs) {
    for (const end = performance.now() + patienceMs; performance.now() < end; ) {
      if (!this.#items.some((item) => item.person === this.#person)) return true;
      await new Promise((done) => setTimeout(done, 50));
    }
    return this.pending().length === 0;
  }

  /**
   * Wait until nothing of a ticket is left to send. Without a connection, this takes until it is back.
   * @param {string} ticketId
   */
  async empty(ticketId) {
    while (this.of(ticketId).length) await new Promise((done) => setTimeout(done, 20));
  }

  /** Send what can be sent now. */
  flush() {
    clearTimeout(this.#timer);
    for (const item of this.#items) {
      if (item.person === this.#person && item.stored && !this.#sending.has(item.ticketId)) this.#sendInOrder(item.ticketId);
    }
    this.#on.onchange();
  }

  /** @param {string} ticketId  whose items are sent in order */
  async #sendInOrder(ticketId) {
    const first = () => this.#items.find((item) => item.person === this.#person && item.ticketId === ticketId);
    try {
      for (let item; (item = first()) && item.stored; ) {
        const aborter = new AbortController();
        this.#sending.set(ticketId, { item, aborter });
        try {
          await this.#send(item, aborter.signal);
        } catch (error) {
          if (aborter.signal.aborted && !item.kept) continue; // sent again, as an operation without an answer
          if (error instanceof Refused && !AGAIN.includes(error.status)) this.#on.onrefused(item, error);
          else if (!(item.kept && aborter.signal.aborted)) throw error;
        }
        this.#offline = false;
        this.#failures = 0;
        await this.#drop(item);
      }
    } catch (error) {
      if (statusOf(error) === 401) {
        this.#offline = false; // the queue has answered
        this.#on.onlogin();
      } else if (error instanceof Unreachable || statusOf(error) === 429) {
        this.#offline = true;
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.flush(), WAITS[Math.min(this.#failures++, WAITS.length - 1)]);
      } else throw error;
    } finally {
      this.#sending.delete(ticketId);
      this.#on.onchange();
    }
  }

  /**
   * @param {OutboxItem} item
   * @param {AbortSignal} signal
   */
  async #send(item, signal) {
    if (item.what === "release") return release(item.ticketId, item.token);
    if (item.what === "finish") return finish(item.ticketId, item.token, item.body);
    if (item.what === "comment") return comment(item.ticketId, item.body);
    if (item.what === "operation") return operations(item.ticketId, item.token, [item.body]);
    for await (const event of refine(item.ticketId, item.token, item.body, signal)) {
      if (event.event === "kept") {
        item.kept = true;
        this.#offline = false;
        this.#on.onchange();
        if (item.cancelled) return;
        this.#on.onanswer(item, event);
      } else if (event.event === "failed" && event.why === "cancelled") {
        throw new Unreachable("the server cancelled the answer, for example because it is stopping"); // the model is asked again
      } else if (event.event !== "alive") this.#on.onanswer(item, event);
    }
  }
}
