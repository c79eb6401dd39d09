// Which of this browser's tabs this one is, and which others live: each holds a lock of its name as long as it is open.
// Without locks (a page that does not come over HTTPS) every other tab counts as gone.

import { newId } from "./api.js";

const RELOAD_MS = 3000; // within this, a tab that is loaded again has its lock back

const lockOf = (tab) => `masklets.tab.${tab}`;
const awaited = new Set();

export async function thisTab() {
  // Its name, which it keeps when it is loaded again. A copy of a tab takes a new one, and holds no tickets.
  const before = sessionStorage.getItem("masklets.tab");
  if (before && (await hold(before, AbortSignal.timeout(RELOAD_MS)))) return before;
  if (before) sessionStorage.removeItem("masklets.holds");
  const tab = newId();
  sessionStorage.setItem("masklets.tab", tab);
  await hold(tab);
  return tab;
}

function hold(tab, signal) {
  // Whether the lock is this tab's now, until it is closed.
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((done) => {
    const forever = () => new Promise(() => done(true));
    navigator.locks.request(lockOf(tab), { signal }, forever).catch(() => done(false));
  });
}

export async function whileGone(tab, run) {
  // Run it if that tab is gone; nobody else does at the same time. False if it lives.
  if (!navigator.locks) return run().then(() => true);
  return navigator.locks.request(lockOf(tab), { ifAvailable: true }, (lock) => (lock ? run().then(() => true) : false));
}

export async function onceGone(tab, run) {
  // Run it when that tab is gone for good: not while it is being loaded again.
  if (awaited.has(tab)) return;
  awaited.add(tab);
  do {
    await navigator.locks.request(lockOf(tab), () => {});
    await new Promise((done) => setTimeout(done, RELOAD_MS));
  } while (!(await whileGone(tab, run)));
  awaited.delete(tab);
}
