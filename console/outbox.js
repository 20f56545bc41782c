// Commands on their way. Each has a key of its own and is sent, word for word the same, until it is answered: after a
// double click, a lost answer, a new token or a page that was loaded again, money moves once or not at all.
//
// A key is its caller's own. Once an attempt may have been carried out only the same caller asks again: sent under another
// name it would be another command. Until they come back the command is stranded, and its key kept.

const KEPT = 'passbook.outbox';
/** A lost attempt may still be carried out for so long: `PASSBOOK_COMMAND_TIMEOUT_MS` and some. */
export const LOST_MS_MAX = 12_000;
const ATTEMPT_MS_MAX = 15_000;
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 5_000;
/** Of a service that has done nothing so often, its last word counts. */
const NOTHING_DONE_TRIES_MAX = 5;

/**
 * @param {object} world what it works with
 * @param {(path: string, options: object) => Promise<Response>} world.request calls `options.onSend` before each time
 * @param {(response: Response) => Promise<Error>} world.refusalOf
 * @param {() => string} world.subject whose keys they are: another caller's are others
 * @param {Storage} world.storage
 * @param {() => number} [world.now]
 * @param {(ms: number) => Promise<void>} [world.sleep]
 * @param {() => string} [world.newKey]
 */
export function outbox({ request, refusalOf, subject, storage, now = Date.now, sleep = wait, newKey = () => crypto.randomUUID() }) {
  const listeners = new Set();
  const waiting = new Map();

  function keep() {
    storage.setItem(KEPT, JSON.stringify([...waiting.values()]));
    listeners.forEach((listener) => listener());
  }

  /** Sends until there is an answer: the receipt, or a refusal that is thrown. */
  async function carry(command) {
    command.isStranded = false;
    waiting.set(command.key, command);
    keep();
    try {
      return await answered(command);
    } catch (error) {
      command.isStranded = error instanceof Stranded;
      throw error;
    } finally {
      if (!command.isStranded) waiting.delete(command.key);
      keep();
    }
  }

  async function answered(command) {
    let pause = PAUSE_MS_MIN;
    for (let nothingDone = 0; ; ) {
      const outcome = await attempt(command);
      if (outcome.receipt) return outcome;
      if (outcome.isLost) {
        command.lostAt = now();
        keep();
      } else if (outcome.isNothingDone && (command.lostAt !== null || ++nothingDone < NOTHING_DONE_TRIES_MAX)) {
        pause = Math.max(pause, outcome.refusal.retryAfterS * 1000);
      } else if (command.lostAt !== null && [401, 403].includes(outcome.refusal.status)) {
        // It says who may ask, and nothing of what was done.
        throw new Stranded(command);
      } else if (command.lostAt === null || now() - command.lostAt > LOST_MS_MAX) {
        throw outcome.refusal;
      }
      // A refusal while an earlier attempt may still be carried out is not the last word.
      await sleep(pause);
      pause = Math.min(pause * 2, PAUSE_MS_MAX);
    }
  }

  async function attempt(command) {
    const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': command.key };
    if (command.ifMatch) headers['If-Match'] = command.ifMatch;
    const onSend = () => {
      if (subject() === command.subject) return;
      if (command.lostAt !== null) throw new Stranded(command);
      command.subject = subject();
      keep();
    };
    let response;
    try {
      response = await request(command.path, { method: 'POST', headers, body: command.body, timeoutMs: ATTEMPT_MS_MAX, onSend });
      if (response.ok) {
        const receipt = await response.json();
        return { receipt, isReplay: response.headers.get('idempotency-replayed') === 'true' };
      }
    } catch (error) {
      if (error instanceof Stranded) throw error;
      // Nobody gave a token: that is an answer.
      if (error.status === 401) return { refusal: error };
      return { isLost: true };
    }
    const refusal = await refusalOf(response);
    const isLost = refusal.code === 'outcome_unknown' || (response.status >= 500 && !refusal.code);
    return { refusal, isLost, isNothingDone: response.status === 429 || response.status === 503 };
  }

  return {
    /**
     * @param {{path: string, body: object, ifMatch?: string, says: string}} command `says` it in a person's words
     * @returns {Promise<{receipt: object, isReplay: boolean}>}
     */
    send: ({ path, body, ifMatch, says }) =>
      carry({ key: newKey(), path, body: JSON.stringify(body), ifMatch, says, subject: subject(), lostAt: null }),

    /** Goes on with what an earlier life of this tab has sent and had no answer to; what was stranded stays so. */
    resume() {
      const kept = JSON.parse(storage.getItem(KEPT) ?? '[]');
      kept.filter(({ isStranded }) => isStranded).forEach((command) => waiting.set(command.key, command));
      // Whether they were sent at all is not known either.
      const open = kept.filter(({ isStranded }) => !isStranded);
      return open.map((command) => ({ command, outcome: carry({ ...command, lostAt: command.lostAt ?? now() }) }));
    },

    /** Asks once more for the answer to a stranded command. */
    again(key) {
      const command = waiting.get(key);
      return { command, outcome: carry(command) };
    },

    /** Asks no more for the answer to a stranded command: somebody has looked at the account. */
    drop(key) {
      waiting.delete(key);
      keep();
    },

    /** What has no answer yet. */
    waiting: () => [...waiting.values()],

    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** Whoever asks now is not the one who sent: under another name it would be another command. */
export class Stranded extends Error {
  constructor(command) {
    super(
      `${command.says}: whether it was carried out is not known, and only ${command.subject || 'whoever sent it'} can ask again, ` +
        'with a token that may. Until then do not send it anew: look at the account.',
    );
    this.title = 'Another caller';
    this.fields = [];
  }
}

function wait(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
