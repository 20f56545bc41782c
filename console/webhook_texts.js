// What the state of a webhook means, in words for operators.

/** How long the service sends an event again before it gives up. */
const GIVE_UP_MS = 3 * 24 * 3600 * 1000;
/** How long the service waits for a response of an endpoint. */
const RESPONSE_S_MAX = 15;

/** The state as one word: an active webhook with an event that fails is `retrying`. */
export const stateOf = ({ state, failing_since: since }) => (state === 'active' && since ? 'retrying' : state);

/**
 * What the state means and what to do, as sentences without times.
 * @param {{state: string, failing_since: string | null, last_status: number | null, last_error: string | null}} webhook
 * @param {(at: string) => string} formatTime
 */
export function explanation(webhook, formatTime) {
  const { failing_since: since, last_status: status, last_error: error } = webhook;
  const reason = error ? ` ${reasonOf(status, error)}` : '';
  switch (stateOf(webhook)) {
    case 'active':
      return error ? `The last attempt failed.${reason}` : 'Events are sent as soon as they are recorded.';
    case 'retrying':
      return `Since ${formatTime(since)} the endpoint does not accept every event.${reason} The service tries again after 5 s, 30 s, 2 min and 10 min, then every hour, until ${formatTime(endOf(since))}. Meanwhile the later events of the same account wait, and nothing is lost.`;
    case 'paused':
      return status === 410
        ? 'The endpoint answered that it is gone (status 410), so the service paused it. No event is sent until you resume it. It continues where it stopped.'
        : 'No event is sent until you resume it. It continues where it stopped, and nothing is lost.';
    case 'failing':
      if (isOtherHistory(error)) return 'The service has stopped sending: after a restore the log has another history than the one that was sent. Replay the events after a position of the log as it is now, then resume.';
      return `The service has stopped sending.${since ? ` Since ${formatTime(since)} an event was not accepted.` : ''}${reason} Repair the endpoint, send a test event, and resume. It continues where it stopped, and nothing is lost.`;
    default:
      return '';
  }
}

const isOtherHistory = (error) => /another history/.test(error ?? '');

const endOf = (since) => new Date(Date.parse(since) + GIVE_UP_MS).toISOString();

const REASONS = {
  400: 'The endpoint refuses the request as malformed.',
  401: 'The endpoint refuses the request as not authorized. Check whether it verifies signatures with the secret of this webhook.',
  403: 'The endpoint refuses the request as not permitted. Check whether it verifies signatures with the secret of this webhook.',
  404: 'There is nothing at this URL.',
  405: 'The endpoint does not accept POST requests at this URL.',
  408: 'The endpoint ended the request before the whole of it arrived.',
  410: 'The endpoint answered that it is gone.',
  413: 'The event is larger than it accepts.',
  429: 'The endpoint asks the service to send more slowly.',
};

/** Why an attempt failed, as a sentence. Without a status there was no response, and the service says why. */
export function reasonOf(status, error) {
  if (status === null || status === undefined) {
    if (/^no response within/.test(error)) return `The endpoint did not answer within ${RESPONSE_S_MAX} s.`;
    return `There was no response: ${error.replace(/\.$/, '')}.`;
  }
  const text = REASONS[status]
    ?? (status < 400 ? 'The endpoint redirects to another URL, and redirects are not followed. Register that URL instead.'
      : status < 500 ? 'The endpoint refuses the request.' : 'The endpoint has a fault of its own.');
  return `${text.slice(0, -1)} (status ${status}).`;
}

/** The result of an attempt as one sentence. */
export const resultOf = ({ status, error }) => (error ? reasonOf(status, error) : `Accepted (status ${status}).`);

/**
 * What a replay from a position would do: how many events come again, or how many are skipped. `undefined` if the position is not
 * the number of an event, or the log has several partitions and the replay does not begin with the first event.
 * @param {string} after the cursor
 * @param {string} position how far the webhook is
 */
export function replayEffect(after, position) {
  const [from] = after.trim().split('-');
  const reached = position.split(',').map((part) => part.split(':').at(-1));
  if (![from, ...reached].every((text) => /^\d+$/.test(text)) || (reached.length > 1 && from !== '0')) return undefined;
  const events = reached.reduce((sum, text) => sum + BigInt(text), 0n) - BigInt(from);
  return events >= 0n ? { again: events } : { skipped: -events };
}
