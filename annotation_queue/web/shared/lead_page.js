// What the pages for leads begin with.

/** @import { Me } from "./types.js" */
import * as api from "./api.js";
import { $ } from "./dom.js";
import { keptTheme, switchTheme } from "./theme.js";

/**
 * The lead or admin who looks at the page; null for everybody else, who is told so or sent to the log-in.
 * @returns {Promise<Me | null>}
 */
export async function begin() {
  keptTheme();
  $("theme").addEventListener("click", switchTheme);
  const me = await api.me().catch(() => null);
  if (me === null) location.href = "/";
  else if (me.roles.includes("lead") || me.roles.includes("admin")) return me;
  else $("error").textContent = "This page is for leads and admins.";
  return null;
}
