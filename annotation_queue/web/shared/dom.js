// Helpers for the document, for every page of the queue.

/**
 * The element with this id. Throws if there is none, or if it is of another kind.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [kind]
 * @returns {T}
 */
export function $(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof (kind ?? HTMLElement))) throw new Error(`#${id} is missing or of another kind`);
  return /** @type {T} */ (found);
}

/**
 * As replaceChildren, but the focus stays inside: on the element with the same id, or else on the holder.
 * @param {HTMLElement} holder
 * @param {...(Node | string)} children
 */
export function replace(holder, ...children) {
  const had = holder.contains(document.activeElement) ? document.activeElement : null;
  holder.replaceChildren(...children);
  if (had === null) return;
  const again = had.id ? document.getElementById(had.id) : null;
  if (again && !(/** @type {HTMLButtonElement} */ (again).disabled)) return again.focus();
  holder.tabIndex = -1;
  holder.focus();
}

/**
 * A new element with these properties and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Partial<HTMLElementTagNameMap[K]>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** What is to be done once an element is seen. @type {WeakMap<Element, () => unknown>} */
const wanted = new WeakMap();
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    wanted.get(target)?.();
  }
});

/**
 * Do something once an element comes into view: most of a long list is never looked at.
 * @param {Element} holder
 * @param {() => unknown} run
 */
export function whenSeen(holder, run) {
  wanted.set(holder, run);
  seen.observe(holder);
}

/**
 * The 2D context of a canvas.
 * @param {HTMLCanvasElement} canvas
 */
export function pen(canvas) {
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("this browser draws no canvas");
  return context;
}

/**
 * The message of anything that was thrown.
 * @param {unknown} error
 */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));

/**
 * The kind of a browser's error, for a message.
 * @param {unknown} error
 */
export const nameOfError = (error) => (error instanceof Error ? error.name : "no storage");

/** How much texts and controls are enlarged on a screen with many pixels: the style sheet says it. */
export const large = () => Number(getComputedStyle(document.documentElement).getPropertyValue("--large")) || 1;
