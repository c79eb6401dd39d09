// Whether somebody is at the page, told by keys and pointer alone: a film that plays round and round is nobody. And how
// long they were at each ticket, which a reload does not forget.

const PAUSE_MS = 2 * 60e3; // without a touch, the time at work stands still after this
const AWAY_MS = 10 * 60e3; // …and nobody is there after this
const KEPT = "masklets.times";
const MOST = 50; // tickets whose time is kept

export class Presence {
  // onleave(), onreturn(): nobody has touched the page for AWAY_MS; somebody does again.
  constructor({ onleave, onreturn }) {
    Object.assign(this, { onleave, onreturn });
    this.away = false;
    this.worked = 0; // ms, up to the last touch
    this.touched = performance.now();
    for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) {
      addEventListener(kind, (event) => this.touch(event), { capture: true, passive: true });
    }
    setInterval(() => {
      if (this.away || performance.now() - this.touched < AWAY_MS) return;
      this.away = true;
      this.onleave();
    }, 5000);
  }

  touch(event) {
    this.worked = this.clock();
    this.touched = performance.now();
    if (!this.away) return;
    this.away = false;
    event.stopPropagation(); // it only says that somebody is here
    this.onreturn();
  }

  clock() {
    // ms at work since the page was opened.
    return this.worked + Math.min(performance.now() - this.touched, PAUSE_MS);
  }
}

const times = () => JSON.parse(localStorage.getItem(KEPT) ?? "[]"); // [[person, ticketId, ms], …], the last one last

const without = (person, ticketId) => times().filter(([who, what]) => who !== person || what !== ticketId);

export const timeAt = (person, ticketId) => times().find(([who, what]) => who === person && what === ticketId)?.[2] ?? 0;

export function keepTime(person, ticketId, ms) {
  localStorage.setItem(KEPT, JSON.stringify([...without(person, ticketId), [person, ticketId, Math.round(ms)]].slice(-MOST)));
}

export function forgetTime(person, ticketId) {
  localStorage.setItem(KEPT, JSON.stringify(without(person, ticketId)));
}
