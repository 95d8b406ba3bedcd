// The inbox of `otpmail dev`. All text of mails goes into the page by textContent; HTML of mails only into a frame that
// is sandboxed twice, by its attribute and by its own policy.
const $ = (id) => document.getElementById(id);
const make = (tag, fields = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
};
const button = (text, onclick, pressed) => {
  const made = make("button", { type: "button", textContent: text, onclick });
  if (pressed !== undefined) made.setAttribute("aria-pressed", String(pressed));
  return made;
};
const view = { mails: [], chosen: null, tab: "HTML", phone: false, dark: matchMedia("(prefers-color-scheme: dark)").matches, language: "curl", last: null };
const tabs = ["HTML", "Text", "Headers", "Source", "Attachments", "Recipients"];

const load = async () => {
  view.mails = (await (await fetch("/inbox")).json()).mails;
  showList();
};
const shown = () => {
  const words = $("search").value.toLowerCase();
  return view.mails.filter((mail) => [mail.subject, mail.preview, mail.code, mail.from, ...mail.to].join("\n").toLowerCase().includes(words));
};
const showList = () => {
  const mails = shown();
  $("status").textContent = view.mails.length ? `${mails.length} of ${view.mails.length} mails` : "No mail yet.";
  $("mails").replaceChildren(...mails.map((mail) => {
    const time = new Date(mail.time * 1000).toLocaleTimeString();
    const item = make("button", { type: "button", onclick: () => choose(mail.id) },
      make("strong", { textContent: mail.subject || "(no subject)" }),
      make("span", { textContent: `${time} · ${mail.to.join(", ")}` }));
    if (mail.id === view.chosen) item.setAttribute("aria-current", "true");
    return make("li", {}, item);
  }));
};
const choose = async (id) => {
  view.chosen = id;
  showList();
  const answer = await fetch(`/mails/${id}`);
  if (answer.ok && view.chosen === id) showMail(await answer.json());
};
const copy = (text) => button("Copy", async (event) => {
  await navigator.clipboard.writeText(text);
  event.target.textContent = "Copied";
});
const showMail = (mail) => {
  view.open = mail;
  const code = mail.code ? [make("div", { className: "row" }, make("span", { className: "code", textContent: mail.code }),
    copy(mail.code), button("Put it into the form", () => { $("check").elements.code.value = mail.code; $("check").elements.code.focus(); }))] : [];
  const tab = tabs.map((name) => button(name, () => { view.tab = name; showMail(mail); }, view.tab === name));
  $("mail").replaceChildren(make("h2", { textContent: mail.subject || "(no subject)" }),
    make("dl", {}, make("dt", { textContent: "From" }), make("dd", { textContent: mail.from }),
      make("dt", { textContent: "To" }), make("dd", { textContent: mail.to.join(", ") })),
    ...code, make("div", { className: "row" }, ...tab, button("Delete", () => remove(mail.id))), ...body(mail));
};
const body = (mail) => {
  switch (view.tab) {
    case "HTML": {
      if (!mail.html) return [make("p", { textContent: "This mail has no HTML." })];
      const frame = make("iframe", { title: "The mail's HTML", src: `/mails/${mail.id}/html` });
      frame.setAttribute("sandbox", "");
      frame.className = `${view.phone ? "phone" : ""} ${view.dark ? "dark" : ""}`;
      const turn = (name) => () => { view[name] = !view[name]; showMail(mail); };
      return [make("div", { className: "row" }, button("Phone", turn("phone"), view.phone), button("Dark", turn("dark"), view.dark)), frame];
    }
    case "Text": return [make("pre", { textContent: mail.text, tabIndex: 0 })];
    case "Headers": return [make("dl", {}, ...mail.headers.flatMap(([name, value]) =>
      [make("dt", { textContent: name }), make("dd", { textContent: value })]))];
    case "Source": return [make("pre", { textContent: mail.source, tabIndex: 0 }), make("a", { href: `/mails/${mail.id}/source`, textContent: "Download" })];
    case "Attachments": return [mail.attachments.length ? make("ul", {}, ...mail.attachments.map((one, number) =>
      make("li", {}, make("a", { href: `/mails/${mail.id}/attachments/${number}`, textContent: one.name || "(no name)" }), ` ${one.type}, ${one.octets} octets`)))
      : make("p", { textContent: "This mail has no attachments." })];
    default: return [make("dl", {}, ...mail.recipients.flatMap((one) =>
      [make("dt", { textContent: one.address }), make("dd", { textContent: one.reply })]))];
  }
};
const remove = async (id) => {
  await fetch(`/mails/${id}`, { method: "DELETE" });
  $("mail").replaceChildren(make("p", { textContent: "Deleted." }));
};

// Calls.
const PATH = "/otpmail.v1.OtpService/";
const call = async (method, message) => {
  view.last = [method, message];
  showCall();
  const answer = await fetch(PATH + method, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(message) });
  const value = await answer.json();
  $("answer").textContent = answer.ok ? value.result || `The mail is ${value.mail.state}.` : `${value.code}: ${value.message}`;
};
const url = () => location.origin;
const languages = {
  curl: (method, message) => `curl -H 'content-type: application/json' \\\n  -d '${JSON.stringify(message).replaceAll("'", "'\\''")}' \\\n  ${url()}${PATH}${method}`,
  Python: (method, message) => `import json\nfrom urllib.request import Request, urlopen\n\nrequest = Request(\n    "${url()}${PATH}${method}",\n    json.dumps(${JSON.stringify(message)}).encode(),\n    {"content-type": "application/json"},\n)\nprint(json.load(urlopen(request)))`,
  Node: (method, message) => `const answer = await fetch("${url()}${PATH}${method}", {\n  method: "POST",\n  headers: { "content-type": "application/json" },\n  body: JSON.stringify(${JSON.stringify(message)}),\n});\nconsole.log(await answer.json());`,
  Go: (method, message) => `answer, err := http.Post(\n\t"${url()}${PATH}${method}",\n\t"application/json",\n\tstrings.NewReader(${JSON.stringify(JSON.stringify(message))}),\n)`,
};
const showCall = () => {
  const [method, message] = view.last ?? ["SendCode", { email: $("send").elements.email.value }];
  $("call").textContent = languages[view.language](method, message);
  $("languages").replaceChildren(...Object.keys(languages).map((name) =>
    button(name, () => { view.language = name; showCall(); }, name === view.language)));
};
$("send").onsubmit = (event) => { event.preventDefault(); call("SendCode", { email: $("send").elements.email.value }); };
$("check").onsubmit = (event) => {
  event.preventDefault();
  call("ValidateCode", { email: $("send").elements.email.value, code: $("check").elements.code.value });
};
$("copy-call").onclick = () => navigator.clipboard.writeText($("call").textContent);
$("clear").onclick = () => fetch("/inbox", { method: "DELETE" });
$("search").oninput = showList;
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, pre") || event.ctrlKey || event.metaKey || event.altKey) return;
  const mails = shown();
  const place = mails.findIndex((mail) => mail.id === view.chosen);
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (event.key === "/") { event.preventDefault(); $("search").focus(); }
  else if (step && mails.length) { event.preventDefault(); choose(mails[Math.min(Math.max(place + step, 0), mails.length - 1)].id); }
  else if (event.key === "Delete" && view.chosen) remove(view.chosen);
});
const events = new EventSource("/events");
events.onopen = load;
events.onmessage = (event) => {
  const told = JSON.parse(event.data);
  if (told.reload) return load();
  view.mails = [told.mail, ...view.mails.filter((mail) => mail.id >= told.oldest && mail.id !== told.mail.id)];
  showList();
  if (view.chosen === null) choose(told.mail.id);
};
showCall();
