// Reads mails with mailparser: for each line of standard input, which is a mail in base64, prints one line of JSON.
import { createInterface } from "node:readline";
import { simpleParser } from "mailparser";

const OPTIONS = { skipHtmlToText: true, skipTextToHtml: true, skipImageLinks: true, skipTextLinks: true };

const mailbox = ({ name, address, group }) => (group ? { name, group: group.map(mailbox) } : { name, address });
const mailboxes = (field) => (field ? [field].flat().flatMap((one) => one.value.map(mailbox)) : []);

const file = (attachment) => ({
  filename: attachment.filename ?? null,
  contentType: attachment.contentType,
  // It guesses the type of octets from the name.
  guessed: /^application\/octet-stream\b/i.test(attachment.headers.get("content-type").value),
  disposition: attachment.contentDisposition ?? null,
  contentId: attachment.contentId ?? null,
  content: attachment.content.toString("base64"),
});

for await (const line of createInterface({ input: process.stdin })) {
  const mail = await simpleParser(Buffer.from(line, "base64"), OPTIONS);
  console.log(
    JSON.stringify({
      subject: mail.subject ?? null,
      from: mailboxes(mail.from),
      to: mailboxes(mail.to),
      cc: mailboxes(mail.cc),
      replyTo: mailboxes(mail.replyTo),
      messageId: mail.messageId ?? null,
      lines: mail.headerLines,
      text: mail.text ?? null,
      html: mail.html || null,
      attachments: mail.attachments.map(file),
    }),
  );
}
