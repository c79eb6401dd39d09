// The size of the brush: by keys, by the wheel or as a number. The browser keeps it.

import { keep, keptNumber } from "./choices.js";
import { element } from "../shared/dom.js";
import { desk } from "./screen.js";

const [LEAST, MOST] = [2, 240]; // px of the page, across
const USUAL = 24;
const ID = "brush-size";

/** Whether the tool that is chosen has a size. */
export const isSized = () => desk.active && ["brush", "eraser"].includes(desk.tool);

/** @param {number} across  px of the page */
function setSize(across) {
  desk.radius = Math.max(LEAST, Math.min(MOST, across)) / 2;
  desk.paint();
  keep("brush", 2 * desk.radius);
}

/** @param {number} by  factor */
export function resizeBrush(by) {
  const before = 2 * desk.radius;
  const wanted = by > 1 ? Math.max(before + 1, before * by) : Math.min(before - 1, before * by);
  setSize(Math.round(wanted));
  const input = document.getElementById(ID);
  if (input instanceof HTMLInputElement) input.value = String(2 * desk.radius);
}

/** A field for the size as a number. @returns {HTMLElement} */
export function sizeField() {
  const value = String(2 * desk.radius);
  const input = element("input", { id: ID, type: "number", min: String(LEAST), max: String(MOST), value });
  input.addEventListener("input", () => input.value && setSize(Number(input.value)));
  input.addEventListener("blur", () => (input.value = String(2 * desk.radius))); // the bounds may have changed it
  input.addEventListener("keydown", ({ key }) => {
    if (key === "Enter" || key === "Escape") input.blur(); // the keys are for the page again
  });
  return element("label", { className: "size", title: "Pixels of the screen; Shift and the wheel change it too" }, "Size ", input);
}

desk.radius = keptNumber("brush", { least: LEAST, most: MOST, usual: USUAL }) / 2;
