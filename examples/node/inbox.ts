// Reads the code from the inbox of `otpmail dev`. In production the person does that.

const http = process.env.OTPMAIL_HTTP ?? "http://localhost:40701";

export async function codeFrom(email: string): Promise<string> {
  const answer = await fetch(`${http}/inbox/${email}/code?wait=5`);
  if (!answer.ok) throw new Error(await answer.text());
  const { code } = (await answer.json()) as { code: string };
  return code;
}
