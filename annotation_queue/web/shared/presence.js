// Whether a person is at the page, and how long they have worked on each ticket, also across a reload.
// Only keys and the pointer count as presence; a video that plays does not.

import { Events } from "./events.js";

const PAUSE_MS = 2 * 60e3; // without a key or the pointer, the working time stops after this
const AWAY_MS = 10 * 60e3; // and the person counts as away after this
const KEPT = "masklets.times";
const MOST = 50; // tickets whose time is kept

/**
 * Emits "leave" when the person counts as away, and "return" at the next key or movement.
 * @extends {Events<{leave: undefined, return: undefined}>}
 */
class Presence extends Events {
  #away = false;
  #worked = 0; // ms, up to the last touch
  #touched = performance.now(); // when a key or the pointer was used last

  constructor() {
    super();
    for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) {
      addEventListener(kind, (event) => this.#touch(event), { capture: true, passive: true });
    }
    setInterval(() => {
      if (this.#away || performance.now() - this.#touched < AWAY_MS) return;
      this.#away = true;
      this.emit("leave");
    }, 5000);
  }

  get away() {
    return this.#away;
  }

  /** @param {Event} event */
  #touch(event) {
    this.#worked = this.clock();
    this.#touched = performance.now();
    if (!this.#away) return;
    this.#away = false;
    event.stopPropagation(); // this key or movement has no other effect
    this.emit("return");
  }

  /** ms of work since the page was opened. */
  clock() {
    return this.#worked + Math.min(performance.now() - this.#touched, PAUSE_MS);
  }
}

export const presence = new Presence();

/** @typedef {[person: string, ticketId: string, ms: number]} Time */

/** @returns {Time[]}  least recent first */
const times = () => JSON.parse(localStorage.getItem(KEPT) ?? "[]");

/** @type {(person: string, ticketId: string) => Time[]} */
const without = (person, ticketId) => times().filter(([who, what]) => who !== person || what !== ticketId);

/** ms that a person has worked on a ticket before. @type {(person: string, ticketId: string) => number} */
export const timeAt = (person, ticketId) =>
  times().find(([who, what]) => who === person && what === ticketId)?.[2] ?? 0;

/** @type {(person: string, ticketId: string, ms: number) => void} */
export function keepTime(person, ticketId, ms) {
  const all = [...without(person, ticketId), [person, ticketId, Math.round(ms)]];
  localStorage.setItem(KEPT, JSON.stringify(all.slice(-MOST)));
}

/** @type {(person: string, ticketId: string) => void} */
export function forgetTime(person, ticketId) {
  localStorage.setItem(KEPT, JSON.stringify(without(person, ticketId)));
}
