// Makes voting pleasanter; nothing on the page needs it.
"use strict";

const form = document.querySelector("form.ballot");
const films = [...document.querySelectorAll(".films video")];
const questions = [...form.querySelectorAll(".ask")];
const submit = form.querySelector("button[type=submit]");
const tools = form.querySelector(".tools");
const toggle = document.getElementById("play");

// Both videos start together, and again when both have ended.
let playing = false;
const say = () => { toggle.textContent = playing ? "Pause" : "Play"; };
const play = () => {
  playing = true;
  for (const film of films) { film.play().catch(() => { playing = false; say(); }); }
  say();
};
const pause = () => {
  playing = false;
  for (const film of films) { film.pause(); }
  say();
};
const again = () => {
  if (playing && films.every((film) => film.ended)) {
    for (const film of films) { film.currentTime = 0; }
    play();
  }
};
for (const film of films) {
  film.removeAttribute("controls");
  film.removeAttribute("loop");
  film.addEventListener("click", () => (playing ? pause() : play()));
  film.addEventListener("ended", again);
}
toggle.addEventListener("click", () => (playing ? pause() : play()));
tools.hidden = films.length === 0;
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) { play(); } else { say(); }

// The question that the arrow keys answer: the one with the focus, else the first open one.
const answered = (question) => question.querySelector("input:checked") !== null;
const current = () => {
  const focused = questions.findIndex((one) => one.contains(document.activeElement));
  if (focused >= 0) { return focused; }
  return questions.findIndex((one) => !answered(one));
};
const mark = () => {
  const index = current();
  questions.forEach((one, place) => one.classList.toggle("current", place === index));
};
const step = (index) => {
  const next = questions[index];
  (next ? next.querySelector("input:checked") ?? next.querySelector("input") : submit).focus();
};
const choose = (side) => {
  const index = current();
  if (index < 0) { return; }
  questions[index].querySelector(`input[value=${side}]`).checked = true;
  step(index + 1);
};
const actions = {
  ArrowLeft: () => choose("left"),
  ArrowRight: () => choose("right"),
  ArrowDown: () => step(current() + 1),
  ArrowUp: () => step(document.activeElement === submit ? questions.length - 1 : Math.max(0, current() - 1)),
  p: () => (playing ? pause() : play()),
};
document.addEventListener("keydown", (event) => {
  const act = actions[event.key];
  if (!act || event.ctrlKey || event.altKey || event.metaKey || event.repeat) { return; }
  event.preventDefault();
  act();
  mark();
});
form.addEventListener("change", mark);
document.addEventListener("focusin", mark);
mark();

// A second press while the first is on its way would only make the page wait longer.
form.addEventListener("submit", () => { submit.disabled = true; });
addEventListener("pageshow", () => { submit.disabled = false; });
