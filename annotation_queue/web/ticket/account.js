// Who works here: what happens when a person logs in, and when they log out.

/** @import { Me } from "../shared/types.js" */
import * as api from "../shared/api.js";
import { $, messageOf } from "../shared/dom.js";
import { refreshKept } from "./kept.js";
import * as keys from "../shared/keys.js";
import { beat, renew, renewAll } from "./leases.js";
import { message, view } from "./messages.js";
import { refreshStats } from "./numbers.js";
import { openLinked } from "./opening.js";
import { offerProjects } from "./projects.js";
import { desk, player } from "./screen.js";
import { outbox } from "./sending.js";
import { session } from "../shared/session.js";
import { giveBack, stopAsking, take, takeNext } from "./supply.js";
import { showKeys } from "./views.js";
import { many } from "../shared/words.js";

const PATIENCE_MS = 4000; // a log-out waits for this long until everything is sent

/**
 * A person has logged in: continue their work, or take up what a reload interrupted, or claim a ticket.
 * @param {Me} me
 */
export async function begin(me) {
  const same = session.me?.name === me.name;
  if (session.me && !same) return location.reload(); // nothing of the other person stays on the page
  session.logIn(me);
  player.rate = me.fps / me.stride;
  keys.use(me.keys);
  localStorage.removeItem("masklets.keys"); // where earlier versions kept them, for everybody at this browser
  showKeys();
  $("who").textContent = me.name;
  offerProjects();
  $("lead").hidden = !me.roles.includes("lead") && !me.roles.includes("admin");
  outbox.sendFor(me.name);
  if (me.live && session.may.track) api.loadModel().catch(() => {}); // it is loaded at the first click otherwise
  refreshStats();
  refreshKept().catch(() => {}); // it is asked again at the next log-in
  beat();
  if (same && (session.current || session.sheet.length)) {
    renewAll();
    return view(session.current ? "work" : "sheet");
  }
  session.dropAll();
  for (const claim of session.keptClaims()) {
    const held = await take(claim).catch(() => null); // its lease may be over
    if (held) session.setAside([...session.aside, held]);
  }
  session.aside.forEach(renew); // a repeated claim gives the lease as it was, which may be about to end
  if (!(await openLinked())) takeNext();
}

$("log-out").addEventListener("click", async () => {
  stopAsking();
  for (const held of session.allHeld) giveBack(held);
  session.dropAll();
  session.keepClaims();
  desk.show(null);
  const left = (await outbox.settled(PATIENCE_MS)) ? 0 : outbox.pending().length;
  if (left === 0) return leave();
  message({
    glyph: "…",
    title: "Not everything has been sent",
    text: `Waiting in this browser for a connection: ${many(left, "change")}. What waits is sent when there is one, ` +
      "or when you log in here again. If its lease has ended by then, it is kept beside its ticket.",
    actions: [{ text: "Log out all the same", run: leave }],
  });
});

async function leave() {
  session.leaving = true;
  try {
    await api.logOut();
  } catch (error) {
    session.leaving = api.statusOf(error) === 401;
    if (!session.leaving) return stillLoggedIn(error);
  }
  location.reload();
}

/** @param {unknown} error */
function stillLoggedIn(error) {
  const why = error instanceof api.Refused ? messageOf(error) : "The queue does not answer.";
  message({
    glyph: "!",
    title: "You are still logged in",
    text: `${why} The next person at this browser works under your name.`,
    actions: [{ text: "Log out", run: leave, key: "Enter" }],
  });
}
