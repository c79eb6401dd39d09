// Names for people: of videos and batches, with their ids where somebody wants one. For every page of the queue.

/** @import { Batch, VideoInfo } from "./types.js" */
import * as api from "./api.js";
import { element, whenSeen } from "./dom.js";

const SAID_MS = 1200; // how long a button says whether it has copied
const SHORT = 8; // characters of an id that stands for a name
const LONG = 12; // characters of an id that is shown as it is

/** @type {(id: string) => string} */
export const short = (id) => (id.length > LONG ? `${id.slice(0, SHORT)}…` : id);

/** @param {VideoInfo} info */
export const nameOfVideo = ({ name, video_id }) => name || short(video_id);

/** "kitchen · 12/3/2026", with its project before it, if that has another name. @param {Batch} batch */
export function nameOfBatch({ name, project, batch_id, opened_at }) {
  const parts = new Set([project, name || short(batch_id), new Date(1000 * opened_at).toLocaleDateString()]);
  return [...parts].filter(Boolean).join(" · ");
}

/** What was asked for before, by id. A name does not change; a failure is asked again. */
class Known {
  /** @type {Map<string, string>} */ #names = new Map();
  /** @type {Map<string, Promise<string>>} */ #asked = new Map();
  #ask;

  /** @param {(id: string) => Promise<string>} ask */
  constructor(ask) {
    this.#ask = ask;
  }

  /** @param {string} id */
  #of(id) {
    const asked = this.#asked.get(id) ?? this.#ask(id);
    this.#asked.set(id, asked);
    asked.then((name) => this.#names.set(id, name), () => this.#asked.delete(id));
    return asked;
  }

  /**
   * Write the name into an element: now, or when it is known after the element was seen. The short id until then.
   * @param {HTMLElement} holder
   * @param {string} id
   */
  write(holder, id) {
    holder.textContent = this.#names.get(id) ?? short(id);
    holder.title = id;
    if (this.#names.has(id)) return;
    whenSeen(holder, () => this.#of(id).then((name) => (holder.textContent = name), () => {})); // or the id stays
  }
}

export const videos = new Known(async (id) => nameOfVideo(await api.video(id)));
export const batches = new Known(async (id) => nameOfBatch(await api.batch(id))); // for leads

/**
 * A name that shows its id as a title, and copies it.
 * @param {Known} known
 * @param {string} id
 * @param {string} what  "video", "batch"
 */
export function named(known, id, what) {
  const name = element("span", { className: "known" });
  known.write(name, id);
  return element("span", { className: "named" }, name, copyButton(id, `Copy the id of this ${what}`));
}

/**
 * @param {string} text  to copy
 * @param {string} title
 */
export function copyButton(text, title) {
  const button = element("button", { type: "button", className: "copy", title, ariaLabel: title });
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text)) ? "✓" : "✗";
    setTimeout(() => (button.textContent = ""), SAID_MS);
  });
  return button;
}

/**
 * Copy a text. True if it worked. Browsers have a clipboard only on pages that came over HTTPS or from this computer.
 * @param {string} text
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = element("textarea", { value: text, className: "offscreen" });
    (document.querySelector("dialog[open]") ?? document.body).append(box);
    box.select();
    const copied = document.execCommand("copy");
    box.remove();
    return copied;
  }
}
