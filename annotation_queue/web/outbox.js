// Answers on their way to the queue: written to the browser's storage before they are sent, sent until the queue
// has them. A closed tab or a lost connection costs nothing; the operation id makes sending twice harmless.

import { finish, Refused, Unreachable } from "./api.js";

const KEY = "masklets.outbox";
const WAITS = [500, 1000, 2000, 4000, 8000];

export class Outbox {
  constructor({ onchange, onrefused, onlogin }) {
    this.items = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    this.offline = false;
    this.sending = false;
    this.failures = 0;
    this.onchange = onchange;
    this.onrefused = onrefused; // (item, error): the queue has answered, and will not take it
    this.onlogin = onlogin;
    this.timer = null;
    addEventListener("online", () => this.flush());
  }

  add(item) {
    // item: {person, ticketId, token, outcome}
    this.items.push(item);
    this.save();
    this.flush();
  }

  save() {
    localStorage.setItem(KEY, JSON.stringify(this.items));
    this.onchange();
  }

  mine(person) {
    // Somebody else's answers, left in this browser, wait for them to log in again.
    this.person = person;
    this.flush();
  }

  pending() {
    return this.items.filter((item) => item.person === this.person);
  }

  async flush() {
    clearTimeout(this.timer);
    if (this.sending) return;
    this.sending = true;
    this.onchange();
    try {
      for (let item; (item = this.pending()[0]); ) {
        try {
          await finish(item.ticketId, item.token, item.outcome);
        } catch (error) {
          if (error instanceof Refused && error.status !== 401) this.onrefused(item, error);
          else throw error;
        }
        this.items = this.items.filter((other) => other !== item);
        this.offline = false;
        this.failures = 0;
        this.save();
      }
    } catch (error) {
      if (error instanceof Refused) this.onlogin();
      else if (error instanceof Unreachable) {
        this.offline = true;
        this.timer = setTimeout(() => this.flush(), WAITS[Math.min(this.failures++, WAITS.length - 1)]);
      } else throw error;
    } finally {
      this.sending = false;
      this.onchange();
    }
  }
}
