// The map of the keys, where each can be given another one.

import { $, element, replace } from "./dom.js";
import * as keys from "./keys.js";

export class Help {
  // kind(): whose keys are shown, "verify" or "track", or null for all.  onchange(): a key has changed.
  constructor({ kind, onchange }) {
    Object.assign(this, { kind, onchange });
    this.choosing = null; // the action that waits for its key
    $("open-help").addEventListener("click", () => this.toggle());
    $("help").addEventListener("close", () => (this.choosing = null));
    $("reset-keys").addEventListener("click", () => {
      keys.reset();
      this.show();
      this.onchange();
    });
  }

  toggle() {
    if ($("help").open) return $("help").close();
    $("help").showModal();
    this.show();
    $("keys").scrollTop = 0;
  }

  show() {
    const kind = this.kind();
    const shown = keys.ACTIONS.filter((action) => !action.view || action.view === kind || kind === null);
    replace(
      $("keys"),
      ...shown.flatMap((action) => [
        element(
          "button",
          { type: "button", id: `rebind-${action.id}`, className: "rebind",
            ariaLabel: `${keys.hint(action.id)}: ${action.title}`,
            onclick: () => {
              this.choosing = action.id;
              this.show();
            } },
          ...(this.choosing === action.id
            ? [element("em", {}, "press a key")]
            : keys.sign(keys.keysOf(action)[0]).split(" ").map((part) => element("kbd", {}, part))),
        ),
        element("span", {}, action.title),
      ]),
    );
  }

  takes(event) {
    // Whether this key is for an action that waits for one: it is the action's now. Escape leaves it as it was.
    if (this.choosing === null) return false;
    if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return true;
    event.preventDefault();
    if (event.key !== "Escape") keys.choose(this.choosing, keys.nameOf(event));
    this.choosing = null;
    this.show();
    this.onchange();
    return true;
  }
}
