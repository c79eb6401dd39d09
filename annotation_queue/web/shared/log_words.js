// What an operation says, in words. For the log of a ticket and the list of kept work.

/** @import { KeptOperation } from "./types.js" */
import { labelText, many, REASONS } from "./words.js";

/** The kinds of operations, as the log names them. @type {Record<string, string>} */
export const KINDS = {
  prompt: "Prompt", stroke: "Drawn mask", propagate: "Propagation", stop: "Stop", lock: "Lock", absent: "Absent",
  clear: "Cleared frame", undo: "Undo", redo: "Redo", verdict: "Verdict", label: "Label", submit: "Submitted", unsubmit: "Taken back",
};

/**
 * The content of an operation in words; "" if its kind says it all.
 * @param {Pick<KeptOperation, "kind" | "payload">} operation
 */
export function saidIn({ kind, payload }) {
  const { verdict, reasons, points_xy, box_xyxy, direction, first, last, masklet, on, watched, label, attributes, text } = JSON.parse(payload);
  if (kind === "verdict") {
    const why = (reasons ?? []).map((/** @type {keyof typeof REASONS} */ reason) => REASONS[reason] ?? reason);
    const seen = watched === null || watched === undefined ? [] : [`${Math.round(100 * watched)} % watched`];
    return [verdict, ...why, ...(text ? [`“${text}”`] : []), ...seen].join(", ");
  }
  if (kind === "submit") return masklet ? `a masklet of ${many(masklet.frame_idx.length, "frame")}` : "a masklet";
  if (kind === "absent") return `frames ${first} to ${last}`;
  if (kind === "prompt") return [many(points_xy?.length ?? 0, "point"), ...(box_xyxy ? ["a box"] : [])].join(", ");
  if (kind === "propagate") return direction === "both" ? "both ways" : direction ?? "both ways";
  if (kind === "label") return label ? labelText(label, attributes ?? {}) : "none";
  if (kind === "lock") return on === false ? "off" : "on";
  return "";
}
