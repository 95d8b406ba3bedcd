// The mail that is open. Its HTML goes only into a frame that is sandboxed twice, by its attribute and by its own policy.
import { $, choices, copyOnClick, isDeferred, make, pairs, size } from "./dom.js";
import { exact, time } from "./times.js";

const TAKEN = "250 ";
const MOST_RECEIVERS = 20; // above the mail; its recipients have a tab of their own
const TABS = ["HTML", "Text", "Headers", "Source", "Recipients"];
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const looks = { width: "Desktop", colours: dark ? "Dark" : "Light" };
let tab = "HTML"; // that was chosen; a mail without it shows another
let mail = null;

const pre = (text, label) => {
  const made = make("pre", { textContent: text, tabIndex: 0, dir: "auto" });
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", label);
  return made;
};

const look = () => `${looks.width} ${looks.colours}`.toLowerCase();

const frame = () => {
  const made = make("iframe", { title: "The mail's HTML" });
  made.setAttribute("sandbox", "allow-popups allow-popups-to-escape-sandbox"); // for a link that a person clicks on
  made.className = look();
  made.src = `/mails/${mail.id}/html`;
  return made;
};

const source = () => {
  const cut = mail.octets > mail.source.length && mail.octets > 1 << 20;
  return [
    make("p", {}, make("a", { href: `/mails/${mail.id}/source`, textContent: "Download" }),
      `, ${size(mail.octets)}${cut ? "; its first megabyte is shown" : ""}`),
    pre(mail.source, "Source"),
  ];
};

const recipient = (one) => {
  const [className, textContent] = one.reply.startsWith(TAKEN) ? ["good", "taken"]
    : isDeferred(one.reply) ? ["", "deferred"] : ["bad", "refused"];
  return [one.address, make("span", {}, make("span", { className, textContent }), ` ${one.reply}`)];
};

const PANELS = {
  HTML: () => [frame()],
  Text: () => [pre(mail.text, "Text")],
  Headers: () => [make("dl", {}, ...pairs(mail.headers))],
  Source: source,
  Recipients: () => [make("dl", {}, ...pairs(mail.recipients.map(recipient)))],
};

const has = (name) => (name === "HTML" ? mail.html !== "" : name !== "Text" || mail.text !== "" || mail.html === "");

const shownTab = () => (has(tab) ? tab : TABS.find(has));

const showPanel = () => {
  const name = shownTab();
  $("looks").hidden = name !== "HTML";
  $("panel").className = name.toLowerCase();
  $("panel").replaceChildren(...PANELS[name]());
};

const attachment = (one, number) => {
  const link = make("a", { className: "button", href: `/mails/${mail.id}/attachments/${number}` },
    make("bdi", { textContent: one.name || "(no name)" }), make("small", { textContent: size(one.octets) }));
  link.title = one.type;
  return make("li", {}, link);
};

const receivers = (to) => {
  const more = to.length - MOST_RECEIVERS;
  return more > 0 ? `${to.slice(0, MOST_RECEIVERS).join(", ")} and ${more} more` : to.join(", ") || "nobody";
};

const refusal = (one) => {
  const [className, words] = isDeferred(one.reply) ? ["refusal deferred", " deferred it: "] : ["refusal", " refused it: "];
  return make("p", { className }, make("b", { textContent: one.address }), words, one.reply);
};

// The reply that the list shows: one for good, if there is any.
export const firstRefusal = (refused) => {
  const { reply } = refused.find((one) => !isDeferred(one.reply)) ?? refused[0];
  const [className, word] = isDeferred(reply) ? ["", "Deferred"] : ["bad", "Refused"];
  return make("span", { className, textContent: `${word}: ${reply}` });
};

const showTop = (shown) => {
  $("gone").hidden = $("start").hidden = true;
  $("open").hidden = false;
  $("subject").textContent = shown.subject || "(no subject)";
  const when = make("span", {}, `${exact(shown.time)} (`, time(shown.time), ")");
  $("people").replaceChildren(...pairs([["From", shown.from], ["To", receivers(shown.to)], ["Time", when]]));
  $("refused").replaceChildren(...shown.refused.map(refusal));
};

// Shows of a mail what the list knows, while the rest of a large one is read.
export const showLoading = (shown) => {
  mail = null;
  showTop(shown);
  $("code").hidden = $("files").hidden = $("looks").hidden = true;
  for (const one of $("tabs").children) one.hidden = true;
  $("panel").className = "";
  $("panel").replaceChildren(make("p", { textContent: "loading …" }));
};

// Shows a mail; the start of the page for null, and where a mail has gone for undefined.
export const showMail = (shown) => {
  mail = shown ?? null;
  $("gone").hidden = shown !== undefined;
  $("start").hidden = shown !== null;
  $("open").hidden = mail === null;
  if (mail === null) return;
  showTop(mail);
  $("code").hidden = !mail.code;
  $("code").querySelector(".code").textContent = mail.shown_code;
  $("files").hidden = mail.attachments.length === 0;
  $("files").replaceChildren(...mail.attachments.map(attachment));
  for (const one of $("tabs").children) one.hidden = !has(one.textContent);
  press(shownTab());
  showPanel();
};

export const openMail = () => mail;

const press = choices($("tabs"), TABS, tab, (name) => {
  tab = name;
  showPanel();
});

const chooseLook = (group, name, names) =>
  choices(group, names, looks[name], (chosen) => {
    looks[name] = chosen;
    const shown = $("panel").querySelector("iframe");
    if (shown) shown.className = look();
  });
const [widths, colours] = $("looks").children;
chooseLook(widths, "width", ["Desktop", "Phone"]);
chooseLook(colours, "colours", ["Light", "Dark"]);
copyOnClick($("copy-code"), () => mail.code);
