// Verifies a delivery with the package `standardwebhooks`: verify.mjs <file with secret, headers and body as JSON>.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { secret, headers, body } = JSON.parse(readFileSync(process.argv[2], "utf8"));
console.log(JSON.stringify(new Webhook(secret).verify(body, headers)));
