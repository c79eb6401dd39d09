// Answers on their way to the queue: written to the browser's storage before they are sent, sent until the queue
// has them. A closed tab or a lost connection costs nothing; the operation id makes sending twice harmless.

import { finish, Refused, Unreachable } from "./api.js";

const PREFIX = "masklets.outbox."; // one key an answer: tabs do not overwrite each other's
const WAITS = [500, 1000, 2000, 4000, 8000];

export class Outbox {
  constructor({ onchange, onrefused, onlogin }) {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
    this.items = keys.map((key) => JSON.parse(localStorage.getItem(key)));
    this.items.sort((a, b) => a.outcome.created_at.localeCompare(b.outcome.created_at));
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
    localStorage.setItem(PREFIX + item.outcome.operation_id, JSON.stringify(item));
    this.onchange();
    this.flush();
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
          if (error instanceof Refused && ![401, 429].includes(error.status)) this.onrefused(item, error);
          else throw error;
        }
        this.items = this.items.filter((other) => other !== item);
        this.offline = false;
        this.failures = 0;
        localStorage.removeItem(PREFIX + item.outcome.operation_id);
        this.onchange();
      }
    } catch (error) {
      if (error.status === 401) this.onlogin();
      else if (error instanceof Unreachable || error.status === 429) {
        this.offline = true;
        this.timer = setTimeout(() => this.flush(), WAITS[Math.min(this.failures++, WAITS.length - 1)]);
      } else throw error;
    } finally {
      this.sending = false;
      this.onchange();
    }
  }
}
