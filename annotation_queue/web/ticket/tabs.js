// Which of this browser's tabs this is, and which others are open: each holds a lock of its own name while it is open.
// Without locks (a page that is not served over HTTPS) every other tab counts as closed.

import { newId } from "../shared/api.js";

const RELOAD_MS = 3000; // a tab that is reloaded has its lock back within this
const TAB = "masklets.tab";

/** @type {(tab: string) => string} */
const lockOf = (tab) => `masklets.tab.${tab}`;
/** @type {Set<string>} */
const awaited = new Set();

/** This tab's name. A reload keeps it. A duplicated tab takes a new one, and holds no tickets. */
export async function thisTab() {
  const before = sessionStorage.getItem(TAB);
  if (before && (await hold(before, AbortSignal.timeout(RELOAD_MS)))) return before;
  if (before) sessionStorage.removeItem("masklets.holds");
  const tab = newId();
  sessionStorage.setItem(TAB, tab);
  await hold(tab);
  return tab;
}

/**
 * Take the lock until this tab is closed. False if another tab holds it.
 * @param {string} tab
 * @param {AbortSignal} [signal]  ends the attempt
 * @returns {Promise<boolean>}
 */
function hold(tab, signal) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((done) => {
    const forever = () => new Promise(() => done(true));
    navigator.locks.request(lockOf(tab), { signal }, forever).catch(() => done(false));
  });
}

/**
 * Run it if that tab is closed; only one tab does so at a time. False if that tab is open.
 * @param {string} tab
 * @param {() => Promise<void>} run
 * @returns {Promise<boolean>}
 */
export async function whileGone(tab, run) {
  if (!navigator.locks) return run().then(() => true);
  return navigator.locks.request(lockOf(tab), { ifAvailable: true }, (lock) => (lock ? run().then(() => true) : false));
}

/**
 * Run it once that tab is closed for good, and not just being reloaded.
 * @param {string} tab
 * @param {() => Promise<void>} run
 */
export async function onceGone(tab, run) {
  if (awaited.has(tab)) return;
  awaited.add(tab);
  do {
    await navigator.locks.request(lockOf(tab), () => {});
    await new Promise((done) => setTimeout(done, RELOAD_MS));
  } while (!(await whileGone(tab, run)));
  awaited.delete(tab);
}
