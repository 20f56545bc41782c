// Server-Sent Events read by hand, for an EventSource cannot send a token. HTML standard, section 9.2.6.

/** Nothing for so long, not even a heartbeat: the connection is dead. */
const SILENCE_MS_MAX = 40_000;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 10_000;

/**
 * Takes a stream apart. Feed it text as it comes.
 * @param {(event: {id: string, data: string}) => void} tell hears of each event
 */
export function reader(tell) {
  let rest = '';
  let id = '';
  let whole = '';
  let data = [];
  return {
    /** What `Last-Event-ID` would be: of what came whole. */
    get id() {
      return whole;
    },
    read(text) {
      const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === '') {
          whole = id;
          if (data.length > 0) tell({ id, data: data.join('\n') });
          data = [];
          continue;
        }
        const colon = line.indexOf(':');
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (field === 'data') data.push(value);
        if (field === 'id' && !value.includes('\0')) id = value;
      }
    },
  };
}

/**
 * Follows a stream for as long as `signal` lets it, and goes on behind the last event after every break.
 * @param {(lastId: string, signal: AbortSignal) => Promise<Response>} open asks for the stream, once a connection
 * @param {(event: {id: string, data: string}) => void} tell
 * @param {(state: 'connecting' | 'live' | 'waiting', reason?: Error) => void} say
 * @param {AbortSignal} signal
 */
export async function follow(open, tell, say, signal) {
  let lastId = '';
  let pause = RETRY_MS_MIN;
  while (!signal.aborted) {
    const attempt = new AbortController();
    const end = () => attempt.abort();
    signal.addEventListener('abort', end);
    let silence = setTimeout(end, SILENCE_MS_MAX);
    try {
      say('connecting');
      const response = await open(lastId, attempt.signal);
      say('live');
      const events = reader(tell);
      const chunks = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await chunks.read();
        if (done) break;
        clearTimeout(silence);
        silence = setTimeout(end, SILENCE_MS_MAX);
        pause = RETRY_MS_MIN;
        events.read(value);
        lastId = events.id || lastId;
      }
      if (!signal.aborted) say('waiting');
    } catch (error) {
      // Its log has another history, in which nothing is behind that event.
      if (error.status === 400) lastId = '';
      if (!signal.aborted) say('waiting', error);
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', end);
    }
    if (signal.aborted) return;
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, RETRY_MS_MAX);
  }
}
