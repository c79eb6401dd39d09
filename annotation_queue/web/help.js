// The list of the keys, in which a person can choose other ones.

/** @import { Side } from "./session.js" */
import { $, element, replace } from "./dom.js";
import * as keys from "./keys.js";

export class Help {
  #dialog = $("help", HTMLDialogElement);
  /** @type {string | null} */ #choosing = null; // the action that waits for its new key
  #side;
  #onchange;

  /**
   * @param {() => Side | null} side  whose keys are shown; null: all
   * @param {() => void} onchange  a key has changed
   */
  constructor(side, onchange) {
    this.#side = side;
    this.#onchange = onchange;
    $("open-help").addEventListener("click", () => this.toggle());
    this.#dialog.addEventListener("close", () => (this.#choosing = null));
    $("reset-keys").addEventListener("click", () => {
      keys.reset();
      this.#show();
      this.#onchange();
    });
  }

  toggle() {
    if (this.#dialog.open) return this.#dialog.close();
    this.#dialog.showModal();
    this.#show();
    $("keys").scrollTop = 0;
  }

  #show() {
    const side = this.#side();
    const shown = keys.ACTIONS.filter((action) => !action.view || action.view === side || side === null);
    replace($("keys"), ...shown.flatMap((action) => [this.#button(action), element("span", {}, action.title)]));
  }

  /** @param {keys.Action} action */
  #button(action) {
    const signs = keys.sign(keys.keysOf(action)[0]).split(" ").map((part) => element("kbd", {}, part));
    const properties = {
      type: /** @type {const} */ ("button"),
      id: `rebind-${action.id}`,
      className: "rebind",
      ariaLabel: `${keys.hint(action.id)}: ${action.title}`,
      onclick: () => {
        this.#choosing = action.id;
        this.#show();
      },
    };
    const waiting = this.#choosing === action.id;
    return element("button", properties, ...(waiting ? [element("em", {}, "press a key")] : signs));
  }

  /**
   * Give this key to the action that waits for one. False if none does. Escape leaves the action's key as it was.
   * @param {KeyboardEvent} event
   */
  takes(event) {
    if (this.#choosing === null) return false;
    if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return true;
    event.preventDefault();
    if (event.key !== "Escape") keys.choose(this.#choosing, keys.nameOf(event));
    this.#choosing = null;
    this.#show();
    this.#onchange();
    return true;
  }
}
