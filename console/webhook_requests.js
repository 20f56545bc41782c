// Commands on webhooks. They take no idempotency key, so each of them says what a lost response means. A registration, a pause and
// a deletion have the same effect when they are repeated: they are sent until the service answers. A registration that was executed
// is then refused with `webhook_exists`, so no endpoint is registered twice. A rotation is never repeated by itself: the second one
// would make the secret before the first one invalid.

import { access, read, request, toApiError } from './api.js';

/** A test waits up to 15 s for the endpoint. */
const ATTEMPT_MS_MAX = 30_000;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 5_000;
/** At most 100 webhooks exist, so one page has them all. */
const WEBHOOKS_MAX = 1000;

const PATH = '/v1/webhooks';

/** The path of one webhook, or of a command on it. */
export const webhookPath = (id, command) => [PATH, id, command].filter(Boolean).join('/');

/** The list of webhooks shows the writes of this tab without a position. */
export const listWebhooks = (signal) => read(PATH, { limit: WEBHOOKS_MAX }, { signal, fresh: false });
export const readWebhook = (id, signal) => read(webhookPath(id), {}, { signal, fresh: false });
export const listDeliveries = (id, after, limit, signal) => read(webhookPath(id, 'deliveries'), { after, limit }, { signal, fresh: false });

/** There was no response, so the command may have been executed. */
export class UnknownOutcome extends Error {
  constructor() {
    super('The service did not answer. It is not known whether the command was carried out.');
    this.title = 'Result unknown';
    this.fields = [];
  }
}

/**
 * Sends a command once. Resolves to the JSON of its response, `null` without content. Throws an `ApiError` or `UnknownOutcome`.
 * @param {{path: string, method?: string, body?: object, onSend?: () => void}} command
 */
export async function sendOnce({ path, method = 'POST', body, onSend }) {
  const options = body ? { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) } : {};
  let response;
  let text;
  try {
    response = await request(path, { method, ...options, timeoutMs: ATTEMPT_MS_MAX, onSend });
    // A refusal whose body is lost does not say which one it is.
    text = await response.text();
  } catch (error) {
    if (error.status === 401 || error instanceof CallerChanged) throw error;
    throw new UnknownOutcome();
  }
  if (response.ok) return text ? JSON.parse(text) : null;
  const error = await toApiError(new Response(text, { status: response.status, headers: response.headers }));
  if (error.code === 'outcome_unknown' || (error.status >= 500 && !error.code)) throw new UnknownOutcome();
  throw error;
}

/** Another user has signed in: a command is not sent again under their name. */
class CallerChanged extends Error {}

/**
 * Sends a command whose repetition has no further effect until the service answers. An error after a lost response has `wasLost`.
 * @param {{path: string, method?: string, body?: object}} command
 * @param {{onLost?: () => void, isAbandoned?: () => boolean, sleep?: (ms: number) => Promise<void>}} [options] `isAbandoned`: the
 *   page was left, so nothing is sent any more
 */
export async function sendUntilAnswered(command, { onLost = () => {}, isAbandoned = () => false, sleep = defaultSleep } = {}) {
  const caller = access.subject();
  const onSend = () => {
    if (access.subject() !== caller || isAbandoned()) throw new CallerChanged('The command is not sent again.');
  };
  let wasLost = false;
  for (let retryMs = RETRY_MS_MIN; ; retryMs = Math.min(retryMs * 2, RETRY_MS_MAX)) {
    try {
      return await sendOnce({ ...command, onSend });
    } catch (error) {
      const isLost = error instanceof UnknownOutcome;
      // After a lost response a refusal that can pass does not say whether the command was executed.
      const canPass = wasLost && (error.status === 429 || error.status >= 500);
      if (!isLost && !canPass) throw Object.assign(error, { wasLost });
      wasLost = true;
      onLost();
      await sleep(Math.max(retryMs, (error.retryAfterS ?? 0) * 1000));
    }
  }
}

const defaultSleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Deletes a webhook. One that does not exist (any more) is deleted, too. */
export async function deleteWebhook(id, options) {
  await sendUntilAnswered({ path: webhookPath(id), method: 'DELETE' }, options).catch((error) => {
    if (error.status !== 404) throw error;
  });
}

/** The webhook of the list with the URL and the filters of a registration, which the service refuses as existing. */
export function findSame(webhooks, { url, types = [], account_id = null, owner = null }) {
  const key = (each) => JSON.stringify([normalized(each.url), [...each.types].sort(), each.account_id?.toLowerCase() ?? null, each.owner]);
  const wanted = key({ url, types, account_id, owner });
  return webhooks.find((each) => key(each) === wanted);
}

function normalized(url) {
  try {
    return new URL(url).href;
  } catch {
    return url;
  }
}
