// The mail that is chosen. Its HTML goes only into a frame that is sandboxed twice, by its attribute and by its own policy.
import { $, choices, copyOnClick, make, pairs } from "./dom.js";

const TABS = ["HTML", "Text", "Headers", "Source", "Attachments", "Recipients"];
const LOOKS = { Phone: false, Dark: matchMedia("(prefers-color-scheme: dark)").matches };
let tab = "HTML";
let mail = null;

const pre = (text, label) => {
  const made = make("pre", { textContent: text, tabIndex: 0 });
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", label);
  return made;
};

const frame = () => {
  const made = make("iframe", { title: "The mail's HTML" });
  made.setAttribute("sandbox", "");
  made.className = looks();
  made.src = `/mails/${mail.id}/html`;
  return made;
};

const attachment = (one, number) =>
  make("li", {},
    make("a", { href: `/mails/${mail.id}/attachments/${number}`, textContent: one.name || "(no name)" }),
    ` ${one.type}, ${one.octets} octets`);

const PANELS = {
  HTML: () => [mail.html ? frame() : make("p", { textContent: "This mail has no HTML." })],
  Text: () => [pre(mail.text, "Text")],
  Headers: () => [make("dl", {}, ...pairs(mail.headers))],
  Source: () => [make("p", {}, make("a", { href: `/mails/${mail.id}/source`, textContent: "Download" })), pre(mail.source, "Source")],
  Attachments: () => [
    mail.attachments.length
      ? make("ul", { className: "files" }, ...mail.attachments.map(attachment))
      : make("p", { textContent: "This mail has no attachments." }),
  ],
  Recipients: () => [make("dl", {}, ...pairs(mail.recipients.map((one) => [one.address, one.reply])))],
};

const looks = () => Object.keys(LOOKS).filter((name) => LOOKS[name]).join(" ").toLowerCase();

const showPanel = () => {
  $("looks").hidden = tab !== "HTML" || !mail.html;
  $("panel").replaceChildren(...PANELS[tab]());
};

export const showMail = (shown) => {
  mail = shown;
  $("none").hidden = mail !== null;
  $("open").hidden = mail === null;
  if (mail === null) return;
  $("subject").textContent = mail.subject || "(no subject)";
  const refused = mail.refused.map((one) => ["Refused", `${one.address}: ${one.reply}`]);
  $("people").replaceChildren(...pairs([["From", mail.from], ["To", mail.to.join(", ")], ...refused]));
  $("code").hidden = !mail.code;
  $("code").querySelector(".code").textContent = mail.code;
  showPanel();
};

export const codeOfMail = () => (mail === null ? "" : mail.code);

choices($("tabs"), TABS, tab, (name) => {
  tab = name;
  showPanel();
});
for (const name of Object.keys(LOOKS)) {
  const look = make("button", { type: "button", textContent: name });
  look.setAttribute("aria-pressed", String(LOOKS[name]));
  look.onclick = () => {
    LOOKS[name] = !LOOKS[name];
    look.setAttribute("aria-pressed", String(LOOKS[name]));
    const shown = $("panel").querySelector("iframe");
    if (shown) shown.className = looks();
  };
  $("looks").append(look);
}
copyOnClick($("copy-code"), codeOfMail);
