// The mail that was deleted last can be put back, for a while and until others are deleted.
import { $ } from "./dom.js";

const KEPT = 15_000; // ms
let deleted = null;
let deletion = null; // the request, which ends before the mail is asked back
let end = 0;
let reopen = null;
let say = null;

// Takes the offer away, but not from under the focus.
const expire = () => {
  if ($("undo").contains(document.activeElement)) end = setTimeout(expire, KEPT);
  else offerUndo(null);
};

export const offerUndo = (mail, request = null) => {
  deleted = mail;
  deletion = request;
  clearTimeout(end);
  if (mail) end = setTimeout(expire, KEPT);
  $("undo").hidden = !mail;
  $("deleted").textContent = mail ? `Deleted: ${mail.subject || "(no subject)"}` : "";
  $("said").textContent = mail ? "Deleted. The key u puts it back." : "";
};

export const undo = async () => {
  if (!deleted) return;
  const { id } = deleted;
  const before = deletion;
  const had = $("undo").contains(document.activeElement);
  offerUndo(null);
  try {
    await before;
    const answer = await fetch(`/mails/${id}`, { method: "PUT" });
    if (answer.ok) await reopen(id, had);
    else await say("The mail is gone: others were deleted after it.");
  } catch {
    say("The service gave no answer.");
  }
};

// Takes what opens a mail again, with the focus or without, and what shows words.
export const serveUndo = (opens, says) => {
  reopen = opens;
  say = says;
  $("put-back").onclick = undo;
};
