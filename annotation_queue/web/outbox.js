// What a person did, on its way to the queue: in the browser's database before it is sent, sent until the queue has
// it, in order for each ticket. A closed tab, a crash or a lost connection costs nothing; ids made here make sending
// twice harmless.

import { finish, newId, operations, refine, Refused, release, Unreachable } from "./api.js";

const WAITS = [500, 1000, 2000, 4000, 8000];

function request(asked) {
  return new Promise((done, failed) => {
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => failed(asked.error);
  });
}

export class Outbox {
  constructor({ onchange, onrefused, onlogin, onanswer, ontrouble }) {
    Object.assign(this, { onchange, onrefused, onlogin, onanswer, ontrouble });
    // onrefused(item, error): the queue has answered, and will not take it.  onanswer(item, event): the model's answer.
    this.items = [];
    this.lanes = new Map(); // ticketId → {item, aborter}: the request that is under way
    this.offline = false;
    this.failures = 0;
    this.timer = null;
    this.count = 0;
    addEventListener("online", () => this.flush());
  }

  async open() {
    const asked = indexedDB.open("masklets", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("outbox", { keyPath: "id" });
    this.database = await request(asked);
    this.items = await request(this.database.transaction("outbox").objectStore("outbox").getAll());
    this.items.sort((a, b) => a.at - b.at);
  }

  async write(change) {
    // Resolves once the change is on disk.
    if (!this.database) throw new DOMException("no database", "InvalidStateError");
    const transaction = this.database.transaction("outbox", "readwrite", { durability: "strict" });
    change(transaction.objectStore("outbox"));
    await new Promise((done, failed) => {
      transaction.oncomplete = done;
      transaction.onabort = transaction.onerror = () => failed(transaction.error);
    });
  }

  async add({ person, ticketId, token, what, body }) {
    // what: "operation", "refine" (an operation that the model answers), "finish" or "release".
    const item = { id: newId(), at: Date.now() * 1000 + (this.count++ % 1000), person, ticketId, token, what, body };
    this.items.push(item);
    this.onchange();
    try {
      await this.write((store) => store.put(item));
    } catch (error) {
      this.ontrouble(`This browser cannot keep what you do (${error?.name ?? "no storage"}): stay online until it says Saved.`);
    }
    item.stored = true;
    this.flush();
  }

  async drop(item) {
    this.items = this.items.filter((other) => other !== item);
    this.onchange();
    await this.write((store) => store.delete(item.id)).catch(() => {});
  }

  mine(person) {
    // Somebody else's answers, left in this browser, wait for them to log in again.
    this.person = person;
    for (const item of this.items) item.stored = true;
    this.flush();
  }

  pending() {
    return this.items.filter((item) => item.person === this.person && !item.kept && item.what !== "release");
  }

  of(ticketId) {
    return this.items.filter((item) => item.person === this.person && item.ticketId === ticketId);
  }

  cancel(ticketId, operationIds) {
    // The model need not answer these operations any more. The queue keeps them all the same.
    for (const item of this.of(ticketId)) {
      if (item.what !== "refine" || !operationIds.includes(item.body.operation_id)) continue;
      const lane = this.lanes.get(ticketId);
      item.cancelled = true;
      if (lane?.item !== item) item.what = "operation";
      else if (item.kept) lane.aborter.abort("cancelled");
    }
  }

  async settled(patienceMs) {
    // Whether everything has been sent, after waiting for it for a while.
    for (const end = performance.now() + patienceMs; performance.now() < end; ) {
      if (!this.items.some((item) => item.person === this.person)) return true;
      await new Promise((done) => setTimeout(done, 50));
    }
    return this.pending().length === 0;
  }

  flush() {
    clearTimeout(this.timer);
    for (const item of this.items) {
      if (item.person === this.person && item.stored && !this.lanes.has(item.ticketId)) this.lane(item.ticketId);
    }
    this.onchange();
  }

  async lane(ticketId) {
    // Send what there is of one ticket, in order.
    const first = () => this.items.find((item) => item.person === this.person && item.ticketId === ticketId);
    try {
      for (let item; (item = first()) && item.stored; ) {
        const aborter = new AbortController();
        this.lanes.set(ticketId, { item, aborter });
        try {
          await this.send(item, aborter.signal);
        } catch (error) {
          if (error instanceof Refused && ![401, 429].includes(error.status)) this.onrefused(item, error);
          else if (!(item.kept && aborter.signal.aborted)) throw error;
        }
        this.offline = false;
        this.failures = 0;
        await this.drop(item);
      }
    } catch (error) {
      if (error.status === 401) this.onlogin();
      else if (error instanceof Unreachable || error.status === 429) {
        this.offline = true;
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.flush(), WAITS[Math.min(this.failures++, WAITS.length - 1)]);
      } else throw error;
    } finally {
      this.lanes.delete(ticketId);
      this.onchange();
    }
  }

  async send(item, signal) {
    if (item.what === "release") return release(item.ticketId, item.token);
    if (item.what === "finish") return finish(item.ticketId, item.token, item.body);
    if (item.what === "operation") return operations(item.ticketId, item.token, [item.body]);
    for await (const event of refine(item.ticketId, item.token, item.body, signal)) {
      if (event.event === "kept") {
        item.kept = true;
        this.offline = false;
        this.onchange();
        if (item.cancelled) return;
      } else this.onanswer(item, event);
    }
  }
}
