// Times as they are read at a glance, with the exact ones beside. A clock keeps those up to date that are on the page.
import { make } from "./dom.js";

const ago = (seconds) => {
  const past = Date.now() / 1000 - seconds;
  if (past < 60) return "now";
  if (past < 3600) return `${Math.floor(past / 60)} min`;
  if (past < 86_400) return `${Math.floor(past / 3600)} h`;
  return new Date(seconds * 1000).toLocaleDateString();
};

export const exact = (seconds) => new Date(seconds * 1000).toLocaleString();

export const time = (seconds) => {
  const moment = new Date(seconds * 1000);
  const made = make("time", { textContent: ago(seconds), dateTime: moment.toISOString(), title: exact(seconds) });
  made.dataset.seconds = seconds;
  return made;
};

setInterval(() => {
  for (const one of document.querySelectorAll("time[data-seconds]")) {
    const words = ago(Number(one.dataset.seconds));
    if (one.textContent !== words) one.textContent = words;
  }
}, 10_000);
