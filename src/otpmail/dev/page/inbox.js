// The inbox of `otpmail dev`: the list, and what opens which mail.
import { serveForms } from "./calls.js";
import { $, make } from "./dom.js";
import { codeOfMail, showMail } from "./mail.js";

let mails = []; // the newest first
let chosen = null;
let awaited = null; // the address to which the form sent a code: its mail opens at once
const items = new Map(); // an element for each mail; it stays, and so does the focus in it

const item = (mail) => {
  const time = new Date(mail.time * 1000).toLocaleTimeString();
  const button = make("button", { type: "button" },
    make("strong", { textContent: mail.subject || "(no subject)" }),
    make("span", { textContent: `${time} · ${mail.to.join(", ")}` }),
    make("span", { textContent: mail.refused.length ? `Refused: ${mail.refused[0].reply}` : mail.preview }));
  if (mail.refused.length) button.className = "refused";
  button.onclick = () => choose(mail.id);
  return make("li", {}, button);
};

const shown = () => {
  const words = $("search").value.toLowerCase();
  const found = (mail) =>
    [mail.subject, mail.preview, mail.code, mail.from, ...mail.to].join("\n").toLowerCase().includes(words);
  return words ? mails.filter(found) : mails;
};

const showList = () => {
  const kept = new Set(mails.map((mail) => mail.id));
  for (const [id, element] of items) {
    if (kept.has(id)) continue;
    element.remove();
    items.delete(id);
  }
  for (const mail of [...mails].reverse()) {
    if (items.has(mail.id)) continue;
    items.set(mail.id, item(mail));
    $("mails").prepend(items.get(mail.id));
  }
  const found = new Set(shown().map((mail) => mail.id));
  for (const [id, element] of items) {
    element.hidden = !found.has(id);
    element.firstChild.toggleAttribute("aria-current", id === chosen);
    if (id === chosen) element.firstChild.setAttribute("aria-current", "true");
  }
  $("status").textContent = mails.length ? `${found.size} of ${mails.length} mails` : "No mail yet.";
};

const choose = async (id) => {
  chosen = id;
  showList();
  if (id === null) {
    showMail(null);
    return;
  }
  items.get(id)?.scrollIntoView({ block: "nearest" });
  const answer = await fetch(`/mails/${id}`);
  if (answer.ok && chosen === id) showMail(await answer.json());
};

// One load at a time; what asks meanwhile is answered by one more.
let loading = false;
let again = false;
const load = async () => {
  again = true;
  if (loading) return;
  loading = true;
  try {
    while (again) {
      again = false;
      const answer = await fetch("/inbox");
      if (!answer.ok) {
        $("status").textContent = (await answer.text()).trim();
        return;
      }
      mails = (await answer.json()).mails;
      if (mails.some((mail) => mail.id === chosen)) showList();
      else choose(mails.length ? mails[0].id : null);
    }
  } catch {
    $("status").textContent = "The service gave no answer.";
  } finally {
    loading = false;
  }
};

// Deletes the mail that is chosen, and opens the next one.
const remove = async () => {
  if (chosen === null) return;
  const id = chosen;
  const list = shown();
  const place = list.findIndex((mail) => mail.id === id);
  const next = list[place + 1] ?? list[place - 1] ?? null;
  mails = mails.filter((mail) => mail.id !== id);
  const lost = items.get(id)?.contains(document.activeElement);
  choose(next && next.id);
  if (lost) (next ? items.get(next.id).firstChild : $("search")).focus();
  await fetch(`/mails/${id}`, { method: "DELETE" });
};

const onKey = (event) => {
  if (event.target.matches("input, pre") || event.ctrlKey || event.metaKey || event.altKey) return;
  const list = shown();
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (event.key === "/") {
    event.preventDefault();
    $("search").focus();
  } else if (step && list.length) {
    event.preventDefault();
    const place = list.findIndex((mail) => mail.id === chosen);
    const next = list[Math.min(Math.max(place + step, 0), list.length - 1)];
    choose(next.id);
    if ($("mails").contains(document.activeElement)) items.get(next.id).firstChild.focus();
  } else if (event.key === "Delete") {
    remove();
  }
};

const onMail = ({ mail, oldest }) => {
  mails = [mail, ...mails.filter((one) => one.id >= oldest && one.id !== mail.id)];
  if (chosen !== null && chosen < oldest) chosen = null;
  if (chosen === null || mail.to.includes(awaited)) {
    awaited = null;
    choose(mail.id);
  } else {
    showList();
  }
};

serveForms((address) => { awaited = address; });
$("use-code").onclick = () => {
  $("check").elements.code.value = codeOfMail();
  $("check").elements.code.focus();
};
$("delete").onclick = remove;
$("clear").onclick = () => fetch("/inbox", { method: "DELETE" });
$("search").oninput = showList;
document.addEventListener("keydown", onKey);

const events = new EventSource("/events");
events.onopen = load;
events.onmessage = (event) => {
  const told = JSON.parse(event.data);
  if (told.reload) load();
  else onMail(told);
};
