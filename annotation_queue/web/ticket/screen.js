// The three parts of the page that are drawn: the video, the tools above it, the strip below it.

import { Desk } from "../canvas/desk.js";
import { $ } from "../shared/dom.js";
import { notice } from "./messages.js";
import { Player } from "../canvas/player.js";
import { sendOperation } from "./sending.js";
import { session } from "../shared/session.js";
import { Strip } from "../canvas/strip.js";
import { colour } from "../shared/theme.js";

export const player = new Player($("screen", HTMLCanvasElement), $("outline", HTMLCanvasElement));

export const strip = new Strip($("timeline", HTMLCanvasElement), colour);

export const desk = new Desk({
  player,
  marks: $("marks", HTMLCanvasElement),
  stage: $("stage"),
  onact: sendOperation,
  onchange: () => session.emit("draft"),
  onnotice: (text) => notice(text, { frame: true }),
});

player.onview = () => {
  desk.paint();
  session.emit("zoom");
};
player.onbuffer = (waiting) => document.body.classList.toggle("buffering", waiting);
strip.onseek = (position) => {
  player.play(false);
  player.seek(position);
};
