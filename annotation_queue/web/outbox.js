// What a person did, on its way to the queue: in the browser's database before it is sent, sent until the queue has
// it, in order for each ticket. A closed tab, a crash or a lost connection costs nothing; ids made here make sending
// twice harmless. What a tab did is sent by that tab while it lives, and by another one after that.

import { finish, newId, operations, refine, Refused, release, Unreachable } from "./api.js";
import { onceGone, thisTab, whileGone } from "./tabs.js";

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
    this.tab = await thisTab();
    await this.take(this.tab);
    await this.adopt();
  }

  async adopt() {
    // What tabs left that are gone becomes this tab's.
    if (!this.database) return;
    const kept = await request(this.database.transaction("outbox").objectStore("outbox").getAll());
    const others = new Set(kept.map((item) => item.tab ?? "").filter((tab) => tab !== this.tab));
    await Promise.all([...others].map(async (tab) => {
      if (!(await whileGone(tab, () => this.take(tab)))) onceGone(tab, () => this.take(tab).then(() => this.flush()));
    }));
  }

  async take(tab) {
    const taken = [];
    await this.write((store) => {
      store.getAll().onsuccess = (event) => {
        for (const item of event.target.result.filter((each) => (each.tab ?? "") === tab)) {
          store.put(Object.assign(item, { tab: this.tab }));
          taken.push(Object.assign(item, { stored: true }));
        }
      };
    });
    const known = new Set(this.items.map(({ id }) => id));
    this.items = [...this.items, ...taken.filter(({ id }) => !known.has(id))].sort((a, b) => a.at - b.at);
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
    const item = { id: newId(), at: Date.now() * 1000 + (this.count++ % 1000), tab: this.tab, person, ticketId, token, what, body };
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
    this.flush();
  }

  pending() {
    // Of this person; of everybody here, while nobody has logged in.
    const theirs = (item) => this.person === undefined || item.person === this.person;
    return this.items.filter((item) => theirs(item) && !item.kept && item.what !== "release");
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
      if (lane?.item !== item || !item.kept) item.what = "operation";
      if (lane?.item === item) lane.aborter.abort("cancelled");
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
          if (aborter.signal.aborted && !item.kept) continue; // it is to be kept, without the model's answer
          if (error instanceof Refused && ![401, 429].includes(error.status)) this.onrefused(item, error);
          else if (!(item.kept && aborter.signal.aborted)) throw error;
        }
        this.offline = false;
        this.failures = 0;
        await this.drop(item);
      }
    } catch (error) {
      if (error.status === 401) {
        this.offline = false; // it has answered
        this.onlogin();
      } else if (error instanceof Unreachable || error.status === 429) {
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
      } else if (event.event === "failed" && event.why === "cancelled") {
        throw new Unreachable("cancelled, but not from here"); // such as by a server that stops: it is asked again
      } else if (event.event !== "alive") this.onanswer(item, event);
    }
  }
}
