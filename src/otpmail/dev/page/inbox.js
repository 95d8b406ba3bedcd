// The inbox of `otpmail dev`: the list, the search, the keys, and the part behind # that says which mail is open.
import { fillIn, sayDeferred, serveForms } from "./calls.js";
import { $, make } from "./dom.js";
import { firstRefusal, openMail, showLoading, showMail } from "./mail.js";
import { time } from "./times.js";
import { offerUndo, serveUndo, undo } from "./undo.js";

const wide = matchMedia("(min-width: 60rem)");
let mails = []; // the newest first
let found = null; // the ids that a search has found, null without one
let chosen = null; // the id of the mail that is open
let awaited = null; // the address to which the form sent a code: its mail opens at once
const items = new Map(); // an element for each mail; it stays, and so does the focus in it

const item = (mail) => {
  const files = mail.files ? ` · ${mail.files} file${mail.files > 1 ? "s" : ""}` : "";
  const link = make("a", { href: `#/mails/${mail.id}` },
    make("span", { className: "top" },
      make("span", { className: "unseen", textContent: "Unread: " }),
      make("strong", { dir: "auto", textContent: mail.subject || "(no subject)" }), time(mail.time)),
    make("span", { textContent: `${mail.to.join(", ") || "nobody"}${files}` }),
    mail.refused.length ? firstRefusal(mail.refused) : make("span", { dir: "auto", textContent: mail.preview }));
  return make("li", {}, link);
};

const linkOf = (id) => items.get(id)?.firstChild;
const shown = () => (found === null ? mails : mails.filter((mail) => found.has(mail.id)));

const count = () => {
  const unread = mails.filter((mail) => !mail.read).length;
  const words = mails.length ? `${mails.length} mail${mails.length > 1 ? "s" : ""}, ${unread} unread` : "No mail yet.";
  $("status").textContent = found === null || !mails.length ? words : `${shown().length} of ${mails.length} mails`;
  $("status").className = "";
  document.title = `${unread ? `(${unread}) ` : ""}otpmail dev: inbox`;
  $("clear").disabled = mails.length === 0;
  $("empty").hidden = shown().length > 0;
  $("empty").textContent = mails.length ? `No mail has "${$("search").value.trim().slice(0, 100)}".` : "No mail yet. Send a code to begin.";
};

const showList = () => {
  const kept = new Set(mails.map((mail) => mail.id));
  for (const [id, element] of items) {
    if (kept.has(id)) continue;
    element.remove();
    items.delete(id);
  }
  let older = null; // the element of the mail before, which stands below
  for (const mail of [...mails].reverse()) {
    if (!items.has(mail.id)) {
      items.set(mail.id, item(mail));
      if (older === null) $("mails").append(items.get(mail.id));
      else older.before(items.get(mail.id));
    }
    older = items.get(mail.id);
    const link = linkOf(mail.id);
    link.parentNode.hidden = found !== null && !found.has(mail.id);
    link.classList.toggle("unread", !mail.read);
    if (mail.id === chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  count();
};

// Many mails that come at once are shown at once.
let planned = false;
const showListSoon = () => {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    showList();
  });
};

const markRead = (id) => {
  const mail = mails.find((one) => one.id === id);
  if (!mail || mail.read) return;
  mail.read = true;
  fetch(`/mails/${id}/read`, { method: "PUT" });
};

// Shows a mail. If it takes time, the one before makes room for it at once: the keys act on the one that is chosen.
// It may be asked for twice, and stays as the first answer has shown it.
const fetchMail = async (id) => {
  const isAwaited = () => chosen === id && openMail()?.id !== id;
  const known = mails.find((one) => one.id === id);
  const slow = known && setTimeout(() => { if (isAwaited()) showLoading(known); }, 100);
  try {
    const answer = await fetch(`/mails/${id}`);
    const mail = answer.ok ? await answer.json() : undefined;
    if (isAwaited()) showMail(mail);
  } catch {
    if (isAwaited()) say("The service gave no answer.");
  } finally {
    clearTimeout(slow);
  }
};

const open = async (id) => {
  const before = chosen;
  chosen = id;
  document.body.dataset.view = id !== null || location.hash === "#/help" ? "mail" : "list";
  if (id === null) {
    showMail(null);
    showList();
    if (before !== null && !wide.matches) linkOf(before)?.focus();
    return;
  }
  markRead(id);
  showList();
  items.get(id)?.scrollIntoView({ block: "nearest" });
  if (openMail()?.id !== id) {
    await fetchMail(id);
    if (chosen !== id) return;
  }
  if (!wide.matches) $("subject").focus();
};

const route = () => {
  const place = /^#\/mails\/(\d{1,9})$/.exec(location.hash);
  return open(place && Number(place[1]));
};

// Goes to a mail, or with null to where none is open. A step through the list is no step back.
const visit = (id, replace = false) => {
  const hash = id === null ? "#/" : `#/mails/${id}`;
  if (location.hash !== hash) history[replace ? "replaceState" : "pushState"](null, "", hash);
  return route();
};

// One load at a time; what asks meanwhile waits for one more, and so does a mail that comes, which the list may lack.
let loading = null; // ends when nothing asks any more
let again = false;
let first = true;
const load = () => {
  again = true;
  loading ??= loadAll();
  return loading;
};
const loadAll = async () => {
  try {
    while (again) {
      again = false;
      const answer = await fetch("/inbox");
      if (!answer.ok) {
        say((await answer.text()).trim());
        return;
      }
      mails = (await answer.json()).mails;
      settle();
    }
  } catch {
    say("The service gave no answer.");
  } finally {
    loading = null;
  }
};

// Opens what the address bar names. Where that is nothing, or the mail that was open has gone, opens the newest.
const settle = () => {
  const gone = chosen !== null && !mails.some((mail) => mail.id === chosen);
  if (first && location.hash.length > 2) route();
  else if (first || gone) visit(wide.matches && mails.length ? mails[0].id : null, true);
  first = false;
  search();
};

const say = (words) => {
  $("status").textContent = words;
  $("status").className = "bad";
};

let asked = 0;
const search = async () => {
  const words = $("search").value.trim();
  const number = ++asked;
  if (words) {
    const answer = await fetch(`/inbox?search=${encodeURIComponent(words)}`);
    const answered = answer.ok ? await answer.json() : null;
    if (number !== asked || !answered) return;
    found = new Set(answered.mails.map((mail) => mail.id));
  } else {
    found = null;
  }
  showList();
};
let pause = 0;
const searchSoon = () => {
  clearTimeout(pause);
  pause = setTimeout(search, $("search").value ? 80 : 0);
};

// Deletes the mail that is open, and opens the next one.
const remove = () => {
  if (chosen === null) return;
  const id = chosen;
  const mail = mails.find((one) => one.id === id); // maybe one that the search leaves out of the list
  const list = shown();
  const place = list.indexOf(mail);
  const next = (wide.matches && (list[place + 1] ?? list[place - 1])) || null;
  mails = mails.filter((mail) => mail.id !== id);
  const lost = items.get(id)?.contains(document.activeElement);
  visit(next && next.id, true);
  offerUndo(mail, fetch(`/mails/${id}`, { method: "DELETE" }));
  if (next === null) $("put-back").focus(); // what had the focus has gone, and in a field the key u would be text
  else if (lost) linkOf(next.id).focus();
};

// Goes back to a mail that was put back.
const reopen = async (id, focus) => {
  await load();
  visit(id, true);
  if (focus) linkOf(id)?.focus();
};

// Says why a mail is not put back, once no list is on its way that would say how many mails there are.
const sayAfterList = async (words) => {
  await load();
  say(words);
};

// Asks before all mails are deleted: there is no way back.
const askToClear = () => {
  $("sure-title").textContent = mails.length > 1 ? `Delete all ${mails.length} mails?` : "Delete the mail?";
  const hidden = mails.length - shown().length;
  $("sure-text").textContent = hidden ? `${hidden} of them are not in the list now, since the search leaves them out.` : "";
  $("keep").textContent = mails.length > 1 ? "Keep them" : "Keep it";
  $("sure").showModal();
};

const step = (by) => {
  const list = shown();
  if (!list.length) return;
  const place = list.findIndex((mail) => mail.id === chosen);
  const next = list[Math.min(Math.max(place + by, 0), list.length - 1)];
  visit(next.id, true);
  if ($("mails").contains(document.activeElement)) linkOf(next.id).focus();
};

const KEYS = {
  "/": () => $("search").focus(),
  "?": () => { location.hash = "#/help"; },
  j: () => step(1),
  ArrowDown: () => step(1),
  k: () => step(-1),
  ArrowUp: () => step(-1),
  c: () => { if (openMail()?.code) $("copy-code").click(); },
  Delete: remove,
  u: undo,
  Escape: () => { if (!wide.matches && chosen !== null) visit(null); },
};

const onKey = (event) => {
  if (event.target === $("search") && event.key === "Escape") {
    $("search").value = "";
    $("search").blur();
    search();
    return;
  }
  if ($("sure").open || event.target.matches("input, pre") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  if (event.repeat && event.key === "Delete") return; // one press, one mail
  KEYS[event.key]();
};

const onMail = ({ mail, oldest }) => {
  if (loading) again = true;
  const known = mails.some((one) => one.id === mail.id);
  const empty = mails.length === 0;
  const others = mails.filter((one) => one.id >= oldest);
  mails = known ? others.map((one) => (one.id === mail.id ? mail : one)) : [mail, ...others];
  const wanted = mail.to.includes(awaited) && !known;
  if (wanted) sayDeferred(mail.refused[0]?.reply);
  if (wanted) awaited = null;
  if (wanted || (empty && wide.matches && location.hash !== "#/help")) visit(mail.id);
  else if (chosen !== null && chosen < oldest) visit(mails[0].id, true);
  else showListSoon();
  if (found !== null) searchSoon();
};

serveForms((address) => { awaited = address; });
$("use-code").onclick = () => {
  const mail = openMail();
  fillIn(mail.to[0], mail.code);
  if (!wide.matches) visit(null);
  $("check").elements.code.focus();
};
$("delete").onclick = remove;
serveUndo(reopen, sayAfterList);
$("clear").onclick = askToClear;
$("keep").onclick = () => $("sure").close();
$("clear-now").onclick = () => {
  $("sure").close();
  offerUndo(null);
  fetch("/inbox", { method: "DELETE" });
};
$("search").oninput = searchSoon;
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", route);

const events = new EventSource("/events");
events.onopen = load;
events.onerror = () => say("The service does not answer. This page tries again by itself.");
events.onmessage = (event) => {
  const change = JSON.parse(event.data);
  if (change.reload) load();
  else onMail(change);
};
