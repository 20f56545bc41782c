// Sends commands through the outbox and collects the results of commands whose form is no longer open.

import { access, recordWrite, request, toApiError } from './api.js';
import { OriginalCallerRequired, createOutbox } from './outbox.js';

export const outbox = createOutbox({ request, toApiError, subject: access.subject, storage: sessionStorage });

/**
 * Sends a command and resolves to its receipt. All later reads are at least as new as the receipt's position. If
 * `isUnmounted()` is true when the response arrives, the result goes to `results` and the promise stays pending, so that a
 * late response does not navigate the user away from another page.
 */
export async function send(command, isUnmounted) {
  const subject = access.subject();
  const outcome = outbox.send(command);
  await outcome.catch(() => {});
  if (isUnmounted()) {
    trackResult({ command: { ...command, key: crypto.randomUUID(), subject }, outcome });
    return new Promise(() => {});
  }
  const { receipt } = await outcome;
  recordWrite(receipt.position);
  return receipt;
}

const listeners = new Set();
let entries = [];

/**
 * Results of commands without an open form: the user left the form or reloaded the page, or the command had to wait for its
 * original caller.
 */
export const results = {
  /** The results that belong to the current caller. */
  all: () => entries.filter(({ subject }) => subject === access.subject()),
  resume: () => outbox.resume().forEach(trackResult),
  retry: (key) => trackResult(outbox.retry(key)),
  dismiss: (key) => setEntries(entries.filter((entry) => entry.key !== key)),
  onChange(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

function trackResult({ command, outcome }) {
  results.dismiss(command.key);
  const add = (error) => setEntries([...entries, { key: command.key, label: command.label, subject: command.subject, context: { ...command.context, ownLabel: 'The account' }, error }]);
  // The page shows a command that waits for its original caller from the outbox itself.
  outcome.then(({ receipt }) => (recordWrite(receipt.position), add())).catch((error) => error instanceof OriginalCallerRequired || add(error));
}

function setEntries(next) {
  entries = next;
  listeners.forEach((listener) => listener());
}
