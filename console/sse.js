// A client for Server-Sent Events over `fetch`: the browser's EventSource cannot send an Authorization header. The library
// `eventsource-parser` parses the stream; this file reconnects with `Last-Event-ID` (HTML standard, section 9.2).

import { createParser } from './vendor/eventsource-parser.js';

/** A connection without any data for this long, not even a heartbeat, is considered broken. */
const SILENCE_MS_MAX = 40_000;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 10_000;

/**
 * A parser for one connection. It is fed with text chunks of any size.
 * @param {(event: {id: string, data: string}) => void} onEvent
 */
export function eventParser(onEvent) {
  let lastEventId = '';
  const parser = createParser({
    // Heartbeats carry an ID without data: they advance the resume position too.
    onId: (id) => (lastEventId = id),
    onEvent: ({ data }) => onEvent({ id: lastEventId, data }),
  });
  return {
    feed: (text) => parser.feed(text),
    /** The ID of the last complete block; empty before the first one. */
    get lastEventId() {
      return lastEventId;
    },
  };
}

/**
 * Subscribes to a stream until `signal` aborts. After each disconnection it resumes after the last event.
 * @param {(lastEventId: string, signal: AbortSignal) => Promise<Response>} connect opens one connection
 * @param {(event: {id: string, data: string}) => void} onEvent
 * @param {(state: 'connecting' | 'live' | 'waiting', reason?: Error) => void} onState
 * @param {AbortSignal} signal
 */
export async function subscribe(connect, onEvent, onState, signal) {
  let lastEventId = '';
  let retryMs = RETRY_MS_MIN;
  while (!signal.aborted) {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    signal.addEventListener('abort', abort);
    let silenceTimer = setTimeout(abort, SILENCE_MS_MAX);
    try {
      onState('connecting');
      const response = await connect(lastEventId, attempt.signal);
      onState('live');
      const parser = eventParser(onEvent);
      const chunks = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await chunks.read();
        if (done) break;
        clearTimeout(silenceTimer);
        silenceTimer = setTimeout(abort, SILENCE_MS_MAX);
        retryMs = RETRY_MS_MIN;
        parser.feed(value);
        lastEventId = parser.lastEventId || lastEventId;
      }
      if (!signal.aborted) onState('waiting');
    } catch (error) {
      // Status 400: the log was replaced, so it no longer contains the last event. Start from the beginning.
      if (error.status === 400) lastEventId = '';
      if (!signal.aborted) onState('waiting', error);
    } finally {
      clearTimeout(silenceTimer);
      signal.removeEventListener('abort', abort);
    }
    if (signal.aborted) return;
    await new Promise((resolve) => setTimeout(resolve, retryMs));
    retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
  }
}
