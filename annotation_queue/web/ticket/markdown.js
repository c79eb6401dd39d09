// Markdown as elements of the document: headings, paragraphs, lists, quotes, code, emphasis, links and pictures. Whatever
// it does not know, HTML too, stays the text that it is. Builds elements one by one, so a text can never become a script.

import { element } from "../shared/dom.js";

const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^\s*(?:[-*+]|(\d{1,3})[.)])\s+(.*)$/;
const RULE = /^\s*([-*_])\s*(?:\1\s*){2,}$/;
const LEVELS = /** @type {const} */ (["h2", "h3", "h4"]); // h1 is the page's
const LINK = /^(https?:|mailto:)/i; // other addresses could run something

// What begins with a sign inside a line; the first match counts.
const SPAN = new RegExp([
  /(?<code>`+)(?<coded>.+?)\k<code>/,
  /!\[(?<alt>[^\]]*)\]\(\s*<?(?<picture>[^)\s>]+)[^)]*\)/,
  /\[(?<text>[^\]]+)\]\(\s*<?(?<link>[^)\s>]+)[^)]*\)/,
  /(?<strong>\*\*|__)(?=\S)(?<bold>.+?)\k<strong>/,
  /(?<![\p{L}\d])(?<em>[*_])(?=\S)(?<slanted>.+?)\k<em>(?![\p{L}\d])/u,
].map(({ source }) => source).join("|"), "u");

/** @typedef {(address: string) => string | null} Pictures  where a picture is; null: only its text is shown */

/**
 * @param {string} text
 * @param {Pictures} pictures
 * @returns {HTMLElement[]}
 */
export function markdown(text, pictures) {
  const lines = text.replaceAll("\r", "").split("\n");
  /** @type {HTMLElement[]} */
  const made = [];
  while (lines.length) {
    const heading = HEADING.exec(lines[0]);
    if (!lines[0].trim()) lines.shift();
    else if (heading) {
      lines.shift();
      made.push(element(LEVELS[Math.min(heading[1].length, LEVELS.length) - 1], {}, ...spans(heading[2], pictures)));
    } else if (lines[0].startsWith("```")) {
      lines.shift();
      made.push(element("pre", {}, element("code", {}, taken(lines, (line) => !line.startsWith("```")).join("\n"))));
      lines.shift();
    } else if (RULE.test(lines[0])) {
      lines.shift();
      made.push(element("hr"));
    } else if (lines[0].startsWith(">")) {
      const quoted = taken(lines, (line) => line.startsWith(">")).map((line) => line.replace(/^> ?/, ""));
      made.push(element("blockquote", {}, ...markdown(quoted.join("\n"), pictures)));
    } else if (ITEM.test(lines[0])) made.push(list(taken(lines, (line) => ITEM.test(line) || /^\s+\S/.test(line)), pictures));
    else made.push(element("p", {}, ...spans([lines.shift() ?? "", ...taken(lines, goesOn)].join(" "), pictures)));
  }
  return made;
}

/** Whether a line belongs to the paragraph before it. @param {string} line */
const goesOn = (line) => Boolean(line.trim()) && !HEADING.test(line) && !ITEM.test(line) && !/^(```|>)/.test(line);

/** Take the first lines for which this holds. @type {(lines: string[], holds: (line: string) => boolean) => string[]} */
function taken(lines, holds) {
  const end = lines.findIndex((line) => !holds(line));
  return lines.splice(0, end < 0 ? lines.length : end);
}

/**
 * A list of one level. A line that is no item goes on with the one before it.
 * @param {string[]} lines
 * @param {Pictures} pictures
 */
function list(lines, pictures) {
  /** @type {string[]} */
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item) items.push(item[2]);
    else items.push(`${items.pop() ?? ""} ${line.trim()}`);
  }
  const ordered = Boolean(ITEM.exec(lines[0])?.[1]);
  return element(ordered ? "ol" : "ul", {}, ...items.map((item) => element("li", {}, ...spans(item, pictures))));
}

/**
 * The texts and the elements of a line.
 * @param {string} text
 * @param {Pictures} pictures
 * @returns {(Node | string)[]}
 */
function spans(text, pictures) {
  const found = SPAN.exec(text);
  if (!found?.groups) return [text];
  return [text.slice(0, found.index), span(found.groups, pictures), ...spans(text.slice(found.index + found[0].length), pictures)];
}

/**
 * @param {{[name: string]: string | undefined}} groups  of SPAN
 * @param {Pictures} pictures
 * @returns {Node | string}
 */
function span({ coded, alt = "", picture, text = "", link = "", bold, slanted }, pictures) {
  if (coded !== undefined) return element("code", {}, coded);
  if (bold !== undefined) return element("strong", {}, ...spans(bold, pictures));
  if (slanted !== undefined) return element("em", {}, ...spans(slanted, pictures));
  if (picture !== undefined) {
    const src = pictures(picture);
    return src === null ? alt : element("img", { src, alt, loading: "lazy" });
  }
  if (!LINK.test(link)) return text;
  return element("a", { href: link, target: "_blank", rel: "noopener noreferrer" }, ...spans(text, pictures));
}
