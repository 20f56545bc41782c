// What a teller can do: the console's outbox, and what comes of commands that outlived the page that sent them.

import { access, refusalOf, request, wrote } from './api.js';
import { Stranded, outbox } from './outbox.js';

export const outgoing = outbox({ request, refusalOf, subject: access.subject, storage: sessionStorage });

/**
 * Sends a command and answers its receipt. What is read from now on is as new as that. Where its form `isGone` by then, the
 * results tell what became of it, and whoever waits is not answered: nobody is led away from what they do now.
 */
export async function send(command, isGone) {
  const subject = access.subject();
  const outcome = outgoing.send(command);
  await outcome.catch(() => {});
  if (isGone()) {
    follow({ command: { ...command, key: crypto.randomUUID(), subject }, outcome });
    return new Promise(() => {});
  }
  const { receipt } = await outcome;
  wrote(receipt.position);
  return receipt;
}

const listeners = new Set();
let answers = [];

/** What became of commands whose form is gone: one has left it or loaded the page again, or the command was stranded. */
export const results = {
  /** Those of the caller of now. */
  all: () => answers.filter(({ subject }) => subject === access.subject()),
  resume: () => outgoing.resume().forEach(follow),
  again: (key) => follow(outgoing.again(key)),
  drop: (key) => set(answers.filter((answer) => answer.key !== key)),
  onChange(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

function follow({ command, outcome }) {
  results.drop(command.key);
  const tell = (error) => set([...answers, { key: command.key, says: command.says, subject: command.subject, error }]);
  // What is stranded is shown as such for as long as it is.
  outcome.then(({ receipt }) => (wrote(receipt.position), tell())).catch((error) => error instanceof Stranded || tell(error));
}

function set(next) {
  answers = next;
  listeners.forEach((listener) => listener());
}
