// The outbox of commands without a response. Each command has its own idempotency key and is resent unchanged until the
// service answers. After a double click, a lost response, a new token or a page reload, money moves once or not at all.
//
// Idempotency keys belong to the caller. Once an attempt may have been executed, only the same caller may resend the command:
// under another name it would be a different command. Until that caller returns, the command and its key stay stored.

const STORAGE_KEY = 'passbook.outbox';
/** How long a request without a response may still be executed: `PASSBOOK_COMMAND_TIMEOUT_MS` plus a margin. */
export const LATE_EXECUTION_MS_MAX = 12_000;
const ATTEMPT_MS_MAX = 15_000;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 5_000;
/** Tries while the service responds that it did not execute the command (429 or 503). */
const NOT_EXECUTED_TRIES_MAX = 5;

/**
 * @param {object} dependencies
 * @param {(path: string, options: object) => Promise<Response>} dependencies.request calls `options.onSend` before each attempt
 * @param {(response: Response) => Promise<Error>} dependencies.toApiError
 * @param {() => string} dependencies.subject the current caller, who owns the idempotency keys
 * @param {Storage} dependencies.storage
 * @param {() => number} [dependencies.now] in milliseconds
 * @param {(ms: number) => Promise<void>} [dependencies.sleep]
 * @param {() => string} [dependencies.newKey]
 */
export function createOutbox({ request, toApiError, subject, storage, now = Date.now, sleep = defaultSleep, newKey = () => crypto.randomUUID() }) {
  const listeners = new Set();
  const pending = new Map();

  function save() {
    storage.setItem(STORAGE_KEY, JSON.stringify([...pending.values()]));
    listeners.forEach((listener) => listener());
  }

  /** Stores the command in the outbox while it is being sent. Resolves to the receipt or rejects with the final error. */
  async function deliver(command) {
    command.needsOriginalCaller = false;
    pending.set(command.key, command);
    save();
    try {
      return await sendUntilAnswered(command);
    } catch (error) {
      command.needsOriginalCaller = error instanceof OriginalCallerRequired;
      throw error;
    } finally {
      if (!command.needsOriginalCaller) pending.delete(command.key);
      save();
    }
  }

  async function sendUntilAnswered(command) {
    let retryMs = RETRY_MS_MIN;
    for (let notExecuted = 0; ; ) {
      const outcome = await attempt(command);
      if (outcome.receipt) return outcome;
      if (outcome.isUnknown) {
        command.unknownAt = now();
        save();
      } else if (outcome.isNotExecuted && (command.unknownAt !== null || ++notExecuted < NOT_EXECUTED_TRIES_MAX)) {
        retryMs = Math.max(retryMs, outcome.error.retryAfterS * 1000);
      } else if (command.unknownAt !== null && [401, 403].includes(outcome.error.status)) {
        // These statuses concern the current token. They do not say whether the earlier attempt was executed.
        throw new OriginalCallerRequired(command);
      } else if (command.unknownAt === null || now() - command.unknownAt > LATE_EXECUTION_MS_MAX) {
        throw outcome.error;
      }
      // An error is not final while an earlier attempt may still be executed.
      await sleep(retryMs);
      retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
    }
  }

  async function attempt(command) {
    const headers = { 'Content-Type': 'application/json' };
    if (!command.hasItemKeys) headers['Idempotency-Key'] = command.key;
    if (command.ifMatch) headers['If-Match'] = command.ifMatch;
    const onSend = () => {
      if (subject() === command.subject) return;
      if (command.unknownAt !== null) throw new OriginalCallerRequired(command);
      command.subject = subject();
      save();
    };
    let response;
    try {
      response = await request(command.path, { method: command.method ?? 'POST', headers, body: command.body, timeoutMs: ATTEMPT_MS_MAX, onSend });
      if (response.ok) {
        const receipt = await response.json();
        // A command of a batch failed: what is already done is replayed under its own key.
        if (receipt.results?.some?.(({ status }) => status >= 500)) return { isUnknown: true };
        return { receipt, isReplay: response.headers.get('idempotency-replayed') === 'true' };
      }
    } catch (error) {
      if (error instanceof OriginalCallerRequired) throw error;
      // The user declined to enter a token: the 401 response is final.
      if (error.status === 401) return { error };
      return { isUnknown: true };
    }
    const error = await toApiError(response);
    const isUnknown = error.code === 'outcome_unknown' || (response.status >= 500 && !error.code);
    return { error, isUnknown, isNotExecuted: response.status === 429 || response.status === 503 };
  }

  return {
    /**
     * @param {object} command
     * @param {'POST' | 'PUT'} [command.method]
     * @param {string} command.path
     * @param {object} command.body
     * @param {string} [command.ifMatch]
     * @param {boolean} [command.hasItemKeys] whether the body is a batch whose commands have keys of their own
     * @param {string} command.label describes the command to the user
     * @param {import('./problems.js').Context} [command.context] for the text of its error
     * @returns {Promise<{receipt: object, isReplay: boolean}>}
     */
    send: ({ body, ...command }) => deliver({ ...command, key: newKey(), body: JSON.stringify(body), subject: subject(), unknownAt: null }),

    /** Resumes the commands that were pending before a page reload, except those that need their original caller. */
    resume() {
      const stored = JSON.parse(storage.getItem(STORAGE_KEY) ?? '[]');
      stored.filter(({ needsOriginalCaller }) => needsOriginalCaller).forEach((command) => pending.set(command.key, command));
      // A stored command may have been sent before the reload, so its outcome counts as unknown.
      const resumable = stored.filter(({ needsOriginalCaller }) => !needsOriginalCaller);
      return resumable.map((command) => ({ command, outcome: deliver({ ...command, unknownAt: command.unknownAt ?? now() }) }));
    },

    /** Resends a command that needs its original caller. */
    retry(key) {
      const command = pending.get(key);
      return { command, outcome: deliver(command) };
    },

    /** Removes a command whose outcome the user has checked in the account. */
    discard(key) {
      pending.delete(key);
      save();
    },

    /** The commands without a final response. */
    pending: () => [...pending.values()],

    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The outcome of a command is unknown, and the current caller may not resend it: under their name it would be a new command. */
export class OriginalCallerRequired extends Error {
  constructor(command) {
    super(
      `${command.label}: only ${command.subject || 'the user who sent it'} can check the result, with a token that has the ` +
        'required scope. Do not send it again. Check the account first.',
    );
    this.title = 'Result unknown';
    this.fields = [];
  }
}

function defaultSleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
