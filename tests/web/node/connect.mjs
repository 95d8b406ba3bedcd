// A sign-up by Connect's own client for Node, in JSON or protobuf, with what a server of the protocol has to do.
// Prints one line of JSON. Environment: URL, DESCRIPTORS (a file with a FileDescriptorSet), FORM (json or binary).
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { compressionGzip, createConnectTransport } from "@connectrpc/connect-node";

const { URL, DESCRIPTORS, FORM } = process.env;
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(DESCRIPTORS)));
const transport = createConnectTransport({
  baseUrl: URL,
  httpVersion: "1.1",
  useBinaryFormat: FORM === "binary",
  sendCompression: compressionGzip,
  compressMinBytes: 10,
});
const codes = createClient(registry.getService("otpmail.v1.OtpService"), transport);
const mails = createClient(registry.getService("otpmail.v1.MailService"), transport);

const email = "ada@example.org";
const sent = await codes.sendCode({ email }, { timeoutMs: 20_000 });
const checked = await codes.validateCode({ email, code: sent.otpCode });
const states = [];
for await (const mail of mails.watchMail({ id: sent.mail.id })) {
  states.push(mail.state);
}

const failed = async (call) => {
  const error = await call.then(() => assert.fail("it did not fail"), (reason) => ConnectError.from(reason));
  return { code: Code[error.code], message: error.rawMessage, details: error.details.map((detail) => detail.type) };
};
const errors = [
  await failed(codes.sendCode({ email: "nobody" })),
  await failed(mails.getMail({ id: "none" })),
  await failed((async () => { for await (const _ of mails.watchMail({ id: "none" })); })()),
];
console.log(JSON.stringify({ result: checked.result, states, errors }));
