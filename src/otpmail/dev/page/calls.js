// The forms that send and check a code, and the same call in other languages. A token stays in this page's memory.
import { $, choices, copyOnClick, isDeferred } from "./dom.js";

const PATH = "/otpmail.v1.OtpService/";
const RESULTS = {
  RESULT_VALID: ": the code is right, and used up",
  RESULT_NO_LIVE_CODE: ": for this address and purpose none was sent, or it was used, replaced or has expired",
  RESULT_TOO_MANY_ATTEMPTS: ": this code or address has no attempts left",
};
const GOOD = new Set(["RESULT_VALID", "STATE_RELAYED"]);
const PLAIN = new Set(["invalid_argument", "not_found"]); // their messages say all
const EXAMPLE = "ada@example.org";
let language = "curl";
let last = null;
let calls = 0;
let waits = false; // for the answer to SendCode

const email = () => $("send").elements.email.value;
const token = () => $("token").querySelector("input").value;
const chosen = (name) => ($(name).value.trim() ? { [name]: $(name).value.trim() } : {});
const toSend = () => ({ email: email(), ...chosen("purpose"), ...chosen("locale") });
// The words of the command line for a name of the contract: "no live code" for RESULT_NO_LIVE_CODE.
const worded = (name) => name.replace(/^(RESULT|STATE)_/, "").toLowerCase().replaceAll("_", " ");
// One word of a shell.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const LANGUAGES = {
  curl: (url, body, asks) => [
    "curl -H 'content-type: application/json' \\",
    ...(asks ? ["  -H \"authorization: Bearer $OTPMAIL_TOKEN\" \\"] : []),
    `  -d ${quoted(body)} \\`,
    `  ${quoted(url)}`,
  ],
  Python: (url, body, asks) => [
    "import json",
    ...(asks ? ["import os"] : []),
    "from urllib.request import Request, urlopen",
    "",
    "request = Request(",
    `    "${url}",`,
    `    json.dumps(${body}).encode(),`,
    "    {",
    '        "content-type": "application/json",',
    ...(asks ? ['        "authorization": "Bearer " + os.environ["OTPMAIL_TOKEN"],'] : []),
    "    },",
    ")",
    "print(json.load(urlopen(request)))",
  ],
  Node: (url, body, asks) => [
    `const answer = await fetch("${url}", {`,
    '  method: "POST",',
    "  headers: {",
    '    "content-type": "application/json",',
    ...(asks ? ["    authorization: `Bearer ${process.env.OTPMAIL_TOKEN}`,"] : []),
    "  },",
    `  body: JSON.stringify(${body}),`,
    "});",
    "console.log(await answer.json());",
  ],
  Go: (url, body, asks) => [
    "request, err := http.NewRequest(",
    '\t"POST",',
    `\t"${url}",`,
    `\tstrings.NewReader(${JSON.stringify(body)}),`,
    ")",
    'request.Header.Set("content-type", "application/json")',
    ...(asks ? ['request.Header.Set("authorization", "Bearer "+os.Getenv("OTPMAIL_TOKEN"))'] : []),
    "answer, err := http.DefaultClient.Do(request)",
    "if err != nil {",
    "\tlog.Fatal(err)",
    "}",
    "defer answer.Body.Close()",
    "io.Copy(os.Stdout, answer.Body)",
  ],
};

const showCall = () => {
  const address = email() || EXAMPLE;
  const [method, message] = last ?? ["SendCode", { ...toSend(), email: address }];
  const lines = LANGUAGES[language](location.origin + PATH + method, JSON.stringify(message), token() !== "");
  $("call").textContent = lines.join("\n");
  const latest = `${location.origin}/inbox/${encodeURIComponent(address)}/code?wait=5`;
  $("test-call").textContent = `curl ${quoted(latest)}`;
};

const post = async (method, message) => {
  const headers = { "content-type": "application/json" };
  if (token()) headers.authorization = `Bearer ${token()}`;
  const answer = await fetch(PATH + method, { method: "POST", headers, body: JSON.stringify(message) });
  const text = await answer.text();
  try {
    return { ok: answer.ok, value: JSON.parse(text) };
  } catch { // not from the method: a 403 of the door is plain text
    return { ok: false, value: { code: String(answer.status), message: text.trim() } };
  }
};

const describe = (value) => {
  if (value.result) {
    const left = value.attemptsLeft;
    const attempts = left === undefined ? "" : `, ${left} attempt${left === 1 ? "" : "s"} left`;
    return `${worded(value.result)}${RESULTS[value.result] ?? ""}${attempts}`;
  }
  const replies = (value.mail.recipients ?? []).map((one) => [one.code, one.enhancedCode, one.reply].filter(Boolean).join(" "));
  const state = value.mail.state === "STATE_FAILED" ? "has failed" : `is ${worded(value.mail.state)}`;
  return [`The mail ${state}`, replies.join("; ")].filter(Boolean).join(": ");
};

const describeError = ({ code, message }) => (PLAIN.has(code) ? message : `${worded(code)}: ${message}`);

const say = (words, kind) => {
  $("answer").textContent = words;
  $("answer").className = kind;
};

// Takes the answer of an earlier action away, also one that has not come yet.
const forget = () => {
  calls++;
  waits = false;
  say("", "");
};

const call = async (method, message) => {
  last = [method, message];
  showCall();
  const typed = $("check").elements.code.value;
  const number = ++calls; // a call whose answer comes after a newer one began shows nothing
  waits = method === "SendCode";
  say(waits ? "sending …" : "checking …", "");
  try {
    const { ok, value } = await post(method, message);
    if (number !== calls) return;
    waits = false;
    const isGood = ok && GOOD.has(value.result ?? value.mail.state);
    say(ok ? describe(value) : describeError(value), isGood ? "good" : "bad");
    const field = $("check").elements.code;
    if (isGood && method === "SendCode" && field.value === typed) field.value = ""; // a code from before the new one
    if (value.code === "unauthenticated") {
      $("token").hidden = false;
      $("token").querySelector("input").focus();
      $("answer").textContent += ". This service asks who calls: give the token of a caller.";
    }
  } catch (error) {
    if (number !== calls) return;
    waits = false;
    say(`The service gave no answer (${error.message}).`, "bad");
  }
};

// Says that the relay has deferred the code which a call waits for: without this the form would be silent for a minute.
export const sayDeferred = (reply) => {
  if (waits && reply && isDeferred(reply)) say(`The relay defers it, and otpmail tries again: ${reply}`, "");
};

// Puts an address and its code into the forms.
export const fillIn = (address, code) => {
  $("send").elements.email.value = address;
  $("check").elements.code.value = code;
  forget();
  showCall();
};

// Calls `sent` with the address before a code is sent there.
export const serveForms = (sent) => {
  $("send").onsubmit = (event) => {
    event.preventDefault();
    sent(email());
    call("SendCode", toSend());
  };
  $("check").onsubmit = (event) => {
    event.preventDefault();
    if (!$("send").reportValidity()) return; // the address is in the other form
    call("ValidateCode", { email: email(), code: $("check").elements.code.value.trim(), ...chosen("purpose") });
  };
  $("token").onsubmit = (event) => {
    event.preventDefault();
    if (last) call(...last);
  };
  $("try").addEventListener("invalid", forget, true); // the browser says what is wrong, beside the field
  $("try").oninput = (event) => {
    if (event.target.name !== "code") last = null;
    showCall();
  };
  choices($("languages"), Object.keys(LANGUAGES), language, (name) => {
    language = name;
    showCall();
  });
  copyOnClick($("copy-call"), () => $("call").textContent);
  copyOnClick($("copy-test"), () => $("test-call").textContent);
  showCall();
};
