// The original's flows, as a client of its own would run them: contract loaded at run time, one address, codes from the
// answers. Prints one line of JSON a flow: {"flow", "ok", "detail"}. Exits with 1 unless all are ok.
//
// Environment: OTPMAIL_ADDRESS (host:port), TARGET (whom all mail goes to), OTP_LIFESPAN_SECONDS (the server's).
// The server must run with OTP_RETURN_CODE=true.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const { OTPMAIL_ADDRESS, TARGET, OTP_LIFESPAN_SECONDS } = process.env;
const PROTO = fileURLToPath(new URL("../../../protos/otpmail/original/mail.proto", import.meta.url));
const PATIENCE = 10_000; // milliseconds a call may take

const definition = protoLoader.loadSync(PROTO, { keepCase: true, enums: String, defaults: true });
const { mail } = grpc.loadPackageDefinition(definition);
const otpClient = new mail.OtpService(OTPMAIL_ADDRESS, grpc.credentials.createInsecure());
const mailClient = new mail.MailService(OTPMAIL_ADDRESS, grpc.credentials.createInsecure());

const call = (client, method, request) =>
  new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + PATIENCE };
    client[method](request, options, (error, response) => (error ? reject(error) : resolve(response)));
  });
const sendMail = (to) => call(mailClient, "SendMail", { to, subject: "Hello", body: "From the Node client." });
const validate = (otpCode) => call(otpClient, "ValidateCode", { email: TARGET, otpCode });

async function sendCode() {
  const { status, otpCode } = await call(otpClient, "SendCode", { email: TARGET });
  assert.equal(status, "SUCCESS");
  assert.match(otpCode, /^\d{6}$/);
  return otpCode;
}

const VALID = { status: "SUCCESS", isValid: true };
const WRONG = { status: "SUCCESS", isValid: false };
const NOT_LIVE = { status: "FAILED", isValid: false };

const flows = {
  async send_and_validate() {
    assert.deepEqual(await validate(await sendCode()), VALID);
  },

  async no_double_use() {
    const code = await sendCode();
    assert.deepEqual(await validate(code), VALID);
    assert.deepEqual(await validate(code), NOT_LIVE);
  },

  async wrong_then_right() {
    const code = await sendCode();
    const wrong = (code[0] === "0" ? "1" : "0") + code.slice(1);
    assert.deepEqual(await validate(wrong), WRONG);
    assert.deepEqual(await validate(code), VALID);
  },

  async expiry() {
    const code = await sendCode();
    await sleep(OTP_LIFESPAN_SECONDS * 1000 + 50); // its life began before the answer came
    assert.deepEqual(await validate(code), NOT_LIVE);
  },

  async empty_recipient() {
    await assert.rejects(sendMail(""), { code: grpc.status.INVALID_ARGUMENT, details: "recipient email is required" });
  },

  async ten_at_once() {
    const codes = new Set(await Promise.all(Array.from({ length: 10 }, sendCode)));
    assert.equal(codes.size, 1, "a live code is mailed again, not replaced");
    assert.deepEqual(await validate([...codes][0]), VALID);
  },

  async send_mail() {
    assert.deepEqual(await sendMail(TARGET), { status: "SUCCESS" });
  },
};

for (const [flow, run] of Object.entries(flows)) {
  const started = performance.now();
  let ok = true;
  let detail;
  try {
    await run();
    detail = `${Math.round(performance.now() - started)} ms`;
  } catch (error) {
    ok = false;
    detail = error.message;
    process.exitCode = 1;
  }
  console.log(JSON.stringify({ flow, ok, detail }));
}
otpClient.close();
mailClient.close();
