// A sign-up by gRPC, with the contract loaded at run time.
// `npm ci && npm run build && npm run grpc` runs it, beside `otpmail dev`.

import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { codeFrom } from "./inbox.js";

const protos = fileURLToPath(new URL("../../../protos", import.meta.url)); // in your program: a copy of them
const loaded = loadSync("otpmail/v1/otp.proto", { includeDirs: [protos], enums: String, longs: String });
const { otpmail } = grpc.loadPackageDefinition(loaded) as any;

const codes = new otpmail.v1.OtpService(
  process.env.OTPMAIL_SERVER ?? "localhost:40700",
  grpc.credentials.createInsecure(),
);
const metadata = new grpc.Metadata();
if (process.env.OTPMAIL_TOKEN) metadata.set("authorization", `Bearer ${process.env.OTPMAIL_TOKEN}`);

function call<Answer>(method: string, request: object): Promise<Answer> {
  const options = { deadline: Date.now() + 10_000 };
  return new Promise((resolve, reject) => {
    codes[method](request, metadata, options, (error: grpc.ServiceError | null, answer: Answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

const email = process.argv[2] ?? "ada@example.org";
const session = randomUUID(); // of this sign-up alone: a stranger with the same address has another code
const sent = await call<{ challengeId: string; mail: { state: string } }>("SendCode", {
  email,
  purpose: "sign-up",
  session,
  requestId: randomUUID(), // so that a repeated call sends no second mail
});
console.log(sent.mail.state);
for (const code of ["000000", await codeFrom(email)]) {
  const { result } = await call<{ result: string }>("ValidateCode", {
    email,
    code,
    purpose: "sign-up",
    challengeId: sent.challengeId,
    session,
  });
  console.log(result);
}
await call("SendCode", { email: "no address" }).catch((failure: grpc.ServiceError) =>
  console.log(`${grpc.status[failure.code]}: ${failure.details}`),
);
codes.close();
