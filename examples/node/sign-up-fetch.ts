// A sign-up by plain fetch: the methods of otpmail.v1 are URLs that take and return JSON (the Connect protocol).
// `npm ci && npm run build && npm run fetch` runs it, beside `otpmail dev`.

import { codeFrom } from "./inbox.js";

const http = process.env.OTPMAIL_HTTP ?? "http://localhost:40701";
const token = process.env.OTPMAIL_TOKEN;

interface Failure {
  code: string; // such as "resource_exhausted"
  message: string;
}

interface SentCode {
  challengeId: string;
  reference: string;
  mail: { state: string };
}

interface Checked {
  result: string;
  attemptsLeft?: number;
}

async function call<Answer>(method: string, request: object): Promise<Answer> {
  const answer = await fetch(`${http}/otpmail.v1.OtpService/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(request),
    signal: AbortSignal.timeout(10_000),
  });
  if (!answer.ok) {
    const { code, message } = (await answer.json()) as Failure;
    throw new Error(`${code}: ${message}`);
  }
  return (await answer.json()) as Answer;
}

const email = process.argv[2] ?? "ada@example.org";
const session = crypto.randomUUID(); // of this sign-up alone: a stranger with the same address has another code
const sent = await call<SentCode>("SendCode", { email, purpose: "sign-up", session, requestId: crypto.randomUUID() });
console.log(sent.mail.state);
for (const code of ["000000", await codeFrom(email)]) {
  const { result } = await call<Checked>("ValidateCode", {
    email,
    code,
    purpose: "sign-up",
    challengeId: sent.challengeId,
    session,
  });
  console.log(result);
}
await call("SendCode", { email: "no address" }).catch((failure: Error) => console.log(failure.message));
