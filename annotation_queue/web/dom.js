// What every page of the queue needs of the document.

export const $ = (id) => document.getElementById(id);

export function replace(holder, ...children) {
  // As replaceChildren, but the focus stays: where it was, by the element's id, or else at the holder.
  const had = holder.contains(document.activeElement) ? document.activeElement.id : null;
  holder.replaceChildren(...children);
  if (had === null) return;
  const again = had && $(had);
  if (again && !again.disabled) return again.focus();
  holder.tabIndex = -1;
  holder.focus();
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
