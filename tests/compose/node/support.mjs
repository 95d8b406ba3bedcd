// Prints, as JSON, what mail clients do not support of the HTML on standard input, by the data of caniemail.com: of each
// feature the clients that lack it.
import { readFileSync } from "node:fs";
import { caniemail } from "caniemail";

const clients = ["apple-mail.*", "gmail.*", "outlook.*", "samsung-email.*", "yahoo.*", "thunderbird.macos", "protonmail.*", "fastmail.*"];
const { issues } = caniemail({ clients, html: readFileSync(0, "utf8") });
const lacking = {};
for (const [client, found] of issues.errors) {
  for (const { title } of found) (lacking[title] ??= []).push(client);
}
for (const names of Object.values(lacking)) names.sort();
process.stdout.write(JSON.stringify(lacking));
