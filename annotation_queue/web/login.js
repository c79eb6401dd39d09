// Logging in: by password, or at a provider that sends the browser back with an answer.

import * as api from "./api.js";
import { $ } from "./dom.js";

export class Login {
  // onlogin(me): somebody has logged in by password.
  constructor({ onlogin }) {
    $("login-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      $("login-error").textContent = "";
      try {
        const me = await api.logIn($("login-name").value.trim(), $("login-password").value);
        $("login-password").value = "";
        document.activeElement?.blur();
        await onlogin(me);
      } catch (error) {
        this.say(error);
      }
    });
    $("login-elsewhere").addEventListener("click", async () => {
      $("login-error").textContent = "";
      try {
        location.assign((await api.beginElsewhere()).url);
      } catch (error) {
        this.say(error);
      }
    });
  }

  ask(again) {
    // again: a login has ended while somebody was at work.
    $("login-text").textContent = again
      ? "Your login has ended. Log in again: nothing is lost."
      : "Log in to verify masklets.";
    $(again ? "login-password" : "login-name").focus();
    api.waysToLogIn().then(({ oidc }) => {
      $("login-elsewhere").hidden = !oidc;
      $("login-elsewhere").textContent = `Log in with ${oidc}`;
    }, () => {}); // no answer, no button
  }

  async finishElsewhere() {
    // What the provider sent with the browser: out of the address, and to the queue, which checks whose it is.
    const sent = new URLSearchParams(location.search);
    if (!sent.has("state")) return;
    history.replaceState(null, "", "/");
    const answer = { state: sent.get("state"), code: sent.get("code"), error: sent.get("error") };
    await api.finishElsewhere(answer).catch((error) => this.say(error));
  }

  say(error) {
    $("login-error").textContent = error instanceof api.Unreachable ? "The queue does not answer." : error.message;
  }
}
