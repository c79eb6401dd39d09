// The list of the keys, in which a person can choose other ones.

/** @import { Side } from "../shared/session.js" */
import * as api from "../shared/api.js";
import { $, element, replace } from "../shared/dom.js";
import * as keys from "../shared/keys.js";
import { fail } from "./login.js";
import { untilAnswered } from "./sending.js";

/** The keys of a name, such as "Ctrl Z". @param {string} name */
const signsOf = (name) => name.split(" ").flatMap((part, n) => [...(n ? [" "] : []), element("kbd", {}, part)]);

export class Help {
  #dialog = $("help", HTMLDialogElement);
  /** @type {string | null} */ #choosing = null; // the action that waits for its new key
  /** @type {string | null} */ #taken = null; // the key that was pressed, which another action has
  /** @type {Promise<unknown>} */ #stored = Promise.resolve();
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
    this.#dialog.addEventListener("close", () => this.#wait(null));
    $("find-key").addEventListener("input", () => {
      this.#wait(null);
      this.#show();
    });
    $("reset-keys").addEventListener("click", () => {
      keys.reset();
      this.#say("");
      this.#store();
    });
  }

  toggle() {
    if (this.#dialog.open) return this.#dialog.close();
    $("find-key", HTMLInputElement).value = "";
    this.#dialog.showModal();
    this.#show();
    $("keys").scrollTop = 0;
  }

  // The keys of this side of the work, and the words, that have what is looked for.
  #show() {
    const side = this.#side();
    const words = $("find-key", HTMLInputElement).value.toLowerCase().split(/\s+/).filter(Boolean);
    const has = (/** @type {string} */ text) => words.every((word) => text.toLowerCase().includes(word));
    const groups = keys.GROUPS.map(({ title, actions }) => ({
      title,
      found: actions.filter((action) => (!action.view || action.view === side || side === null)
        && has(`${title} ${action.title} ${keys.hint(action.id)}`)),
    })).filter(({ found }) => found.length);
    const rows = groups.flatMap(({ title, found }) => [
      element("h3", {}, title),
      ...found.flatMap((action) => [this.#button(action), element("span", {}, action.title)]),
    ]);
    for (const { title, view, rows: all } of keys.FIXED) {
      if (view && view !== side && side !== null) continue;
      const found = all.filter(([key, text]) => has(`${title} ${text} ${key}`));
      if (found.length) rows.push(element("h3", {}, title));
      for (const [key, text] of found) rows.push(element("span", {}, ...signsOf(key)), element("span", {}, text));
    }
    replace($("keys"), ...(rows.length ? rows : [element("p", { className: "soft none" }, "No key has these words.")]));
    let any = false;
    for (const term of this.#dialog.querySelectorAll("dt")) {
      const meaning = term.nextElementSibling;
      const fits = has(`${term.textContent} ${meaning?.textContent}`);
      term.hidden = !fits;
      if (meaning instanceof HTMLElement) meaning.hidden = !fits;
      any ||= fits;
    }
    const terms = this.#dialog.querySelector("details");
    if (terms) [terms.hidden, terms.open] = [!any, any && words.length > 0];
  }

  /** @param {keys.Action} action */
  #button(action) {
    const signs = signsOf(keys.sign(keys.keysOf(action)[0]));
    const properties = {
      type: /** @type {const} */ ("button"),
      id: `rebind-${action.id}`,
      className: "rebind",
      ariaLabel: `${keys.hint(action.id)}: ${action.title}`,
      onclick: () => {
        this.#wait(action.id);
        this.#show();
      },
    };
    const waiting = this.#choosing === action.id;
    return element("button", properties, ...(waiting ? [element("em", {}, "press a key")] : signs));
  }

  /** @param {string | null} id  of the action that waits for its new key */
  #wait(id) {
    this.#choosing = id;
    this.#taken = null;
    this.#say("");
  }

  /** @param {string} text */
  #say(text) {
    $("keys-said").textContent = text;
  }

  /** Keep the chosen keys with the person's account, and show them. */
  #store() {
    this.#stored = this.#stored.then(() => untilAnswered(() => api.setKeys(keys.chosenKeys()))).catch(fail);
    this.#show();
    this.#onchange();
  }

  /**
   * Give this key to the action that waits for one. False if none does. Escape leaves the action's key as it was. A key
   * that another action has must be pressed twice: the two swap their keys then.
   * @param {KeyboardEvent} event
   */
  takes(event) {
    const id = this.#choosing;
    if (id === null) return false;
    if (["Shift", "Control", "Alt", "AltGraph", "Meta"].includes(event.key)) return true;
    event.preventDefault();
    if (event.repeat) return true;
    const name = keys.nameToChoose(event);
    if (event.key === "Escape") {
      this.#wait(null);
      this.#show();
      return true;
    }
    const refusal = keys.whyNot(name);
    const clash = keys.clashOf(id, name);
    if (refusal || (clash && this.#taken !== name)) {
      this.#taken = refusal ? null : name;
      const again = `The key ${keys.sign(name)} is taken: ${clash?.title}. Press it again to swap the two keys.`;
      this.#say(`${refusal ?? again} Another key can be pressed, or Esc.`);
      return true;
    }
    keys.choose(id, name);
    this.#wait(null);
    this.#store();
    return true;
  }
}
