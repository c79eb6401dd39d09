// Listeners by the name of an event. Knows nothing of what the events mean.

/** @template {Record<string, any>} E  name → what an event of this name carries; undefined: nothing */
export class Events {
  /** @type {Map<keyof E, ((detail: any) => void)[]>} */
  #listeners = new Map();

  /**
   * Call `listener` at every later event of this name. Listeners are called in the order in which they were added.
   * @template {keyof E} K
   * @param {K} name
   * @param {(detail: E[K]) => void} listener
   */
  on(name, listener) {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
  }

  /**
   * Call the listeners, before this returns.
   * @template {keyof E} K
   * @param {K} name
   * @param {E[K] extends undefined ? [] : [E[K]]} detail
   */
  emit(name, ...detail) {
    for (const listener of this.#listeners.get(name) ?? []) listener(detail[0]);
  }
}
