// Logging in: by password, or at an identity provider that sends the browser back. And what is done with errors, of
// which one is that a login has ended.

/** @import { Me } from "../shared/types.js" */
import * as api from "../shared/api.js";
import { $, messageOf } from "../shared/dom.js";
import { notice, shownView, view } from "./messages.js";
import { session } from "../shared/session.js";

const LINK = "masklets.link"; // what the address named before the log-in

/** @param {unknown} error */
function say(error) {
  const away = "The queue does not answer, or is busy. Try again in a few seconds.";
  $("login-error").textContent = error instanceof api.Unreachable ? away : messageOf(error);
}

/** @param {(me: Me) => Promise<void>} onlogin  somebody has logged in by password */
export function listenForLogins(onlogin) {
  const [name, password] = [$("login-name", HTMLInputElement), $("login-password", HTMLInputElement)];
  let isBusy = false; // a log-in is under way, until the page has begun for that person
  $("login-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isBusy) return; // the second click of a double click
    isBusy = true;
    $("login-error").textContent = "";
    try {
      const me = await api.logIn(name.value.trim(), password.value);
      password.value = "";
      if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
      await onlogin(me);
    } catch (error) {
      say(error);
    } finally {
      isBusy = false;
    }
  });
  $("login-elsewhere").addEventListener("click", async () => {
    $("login-error").textContent = "";
    try {
      const { url } = await api.beginElsewhere();
      sessionStorage.setItem(LINK, location.hash);
      location.assign(url);
    } catch (error) {
      say(error);
    }
  });
}

/** Show the form, unless it is shown. After a log-out it comes with the page that is loaded anew, which empties it. */
export function askToLogIn() {
  if (shownView() === "login" || session.leaving) return;
  $("login").hidden = false; // until now nothing would have listened to the form
  view("login");
  const again = session.me !== null; // the login ended during work
  $("login-text").textContent = again
    ? "Your login has ended. Log in again: nothing is lost."
    : "Log in to verify masklets.";
  $(again ? "login-password" : "login-name").focus();
  api.waysToLogIn().then(
    ({ oidc }) => {
      $("login-elsewhere").hidden = !oidc;
      $("login-elsewhere").textContent = `Log in with ${oidc}`;
    },
    () => {}, // without an answer there is no button
  );
}

/** Pass the provider's answer, which is in the address, on to the queue, which checks it. */
export async function finishElsewhere() {
  const sent = new URLSearchParams(location.search);
  if (!sent.has("state")) return;
  history.replaceState(null, "", `/${sessionStorage.getItem(LINK) ?? ""}`);
  sessionStorage.removeItem(LINK);
  const answer = { state: sent.get("state"), code: sent.get("code"), error: sent.get("error") };
  await api.finishElsewhere(answer).catch(say);
}

/**
 * Tell the person of an error, or ask for a login.
 * @param {unknown} error
 */
export function fail(error) {
  const status = api.statusOf(error);
  if (status === 401) return askToLogIn();
  notice(status === 403 ? messageOf(error) : `Something went wrong: ${messageOf(error)}`, { over: true });
}
