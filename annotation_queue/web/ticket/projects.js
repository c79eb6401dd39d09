// The project of the ticket on screen, and the choice of the project that the next tickets come from.

import { startAgain } from "./answers.js";
import { $, element } from "../shared/dom.js";
import { refreshStats } from "./numbers.js";
import { session } from "../shared/session.js";

const choice = $("projects", HTMLSelectElement);

/** A person has logged in: offer their projects, if they belong to several. */
export function offerProjects() {
  const { projects } = session.person;
  const options = ["", ...projects].map((value) => element("option", { value }, value || "All projects"));
  choice.replaceChildren(...options);
  choice.value = session.project;
  choice.hidden = projects.length < 2;
}

choice.addEventListener("change", () => {
  session.project = choice.value;
  choice.blur(); // the keys work on the ticket again
  refreshStats();
  startAgain();
});
session.on("ticket", ({ ticket }) => ($("project").textContent = ticket.project));
