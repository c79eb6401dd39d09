// Starts the page of the tickets.
//
// session.js in shared/ holds what the modules share, and tells when it changes; canvas/ draws the video and the masks.
// Above them, in this folder: sending.js and supply.js (to and from the queue), answers.js, live.js, leases.js and
// objects.js (what is done), panel.js, bar.js and views.js (what is shown), controls.js, view_menu.js, pointing.js and
// shortcuts.js (buttons, keys and the pointer). A module imports only from those below it.

import { begin } from "./account.js";
import * as api from "../shared/api.js";
import { showLease, showSaveState } from "./bar.js";
import { nameOfError } from "../shared/dom.js";
import "./history.js";
import "./live.js";
import { askToLogIn, fail, finishElsewhere, listenForLogins } from "./login.js";
import { notice } from "./messages.js";
import { refreshStats } from "./numbers.js";
import "./pointing.js";
import { outbox, untilAnswered } from "./sending.js";
import { session } from "../shared/session.js";
import "./shortcuts.js";
import "./spoken.js";
import { keptTheme } from "../shared/theme.js";
import { showKeys } from "./views.js";

const SECOND_MS = 1000;
const STATS_MS = 15 * SECOND_MS;
const TIMES_MS = 5 * SECOND_MS;

const keepTime = () => session.current?.keepTime();

session.on("loginEnded", askToLogIn);
keptTheme();
showKeys();
showSaveState();
setInterval(showLease, SECOND_MS);
setInterval(keepTime, TIMES_MS);
addEventListener("pagehide", keepTime);
setInterval(() => document.visibilityState === "visible" && session.me && refreshStats(), STATS_MS);
listenForLogins(begin);

try {
  await outbox.open();
} catch (error) {
  notice(`This browser cannot keep what you do (${nameOfError(error)}): stay online until it says Saved.`, { over: true });
}
await finishElsewhere();
try {
  await begin(await untilAnswered(api.me));
} catch (error) {
  fail(error);
}
