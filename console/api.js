// The way to the API: every request of the console passes here. It has the caller's token, and no other power.

import { parse } from './json.js';
import { later } from './position.js';

const TOKEN = 'passbook.token';
/** A view that is behind waits 2 s by itself; a caller who asks too often waits here. So often they are asked again. */
const TRIES_MAX = 5;
const READ_MS_MAX = 30_000;

/** An answer other than success, in the API's own words. */
export class Refusal extends Error {
  constructor(status, problem = {}, retryAfterS = 1) {
    super(problem.detail || problem.title || `The service answered with status ${status}.`);
    this.status = status;
    this.code = problem.code;
    this.title = problem.title;
    this.detail = problem.detail;
    this.fields = problem.errors ?? [];
    this.balance = problem.balance;
    this.requestId = problem.request_id;
    this.retryAfterS = retryAfterS;
  }
}

// ---- The token: kept for this tab alone, and gone with it.

let token = sessionStorage.getItem(TOKEN) ?? '';
let asking = null;
let isDeclined = false;
let callers = 0;
const listeners = new Set();

export const access = {
  /** Whether a token is kept. */
  has: () => token !== '',
  /** Who the token names; the service alone judges whether that is true. */
  subject() {
    try {
      const claims = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
      return String(JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(claims), (c) => c.charCodeAt(0)))).sub);
    } catch {
      return '';
    }
  },
  /** How many this tab has had: what one of them has read or typed no other sees. */
  callers: () => callers,
  /** What is wrong with the token, while somebody has to give one. */
  get question() {
    return asking?.reason;
  },
  give(given) {
    const before = access.subject();
    token = given.trim().replace(/^bearer /i, '');
    sessionStorage.setItem(TOKEN, token);
    if (before && access.subject() !== before) callers++;
    isDeclined = false;
    settle(true);
  },
  decline() {
    isDeclined = true;
    settle(false);
  },
  forget() {
    token = '';
    sessionStorage.removeItem(TOKEN);
    callers++;
    ask('The token was forgotten.');
  },
  /** Asks for a token although nobody has refused one. */
  ask: () => ask(''),
  onChange(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

/** Whether a token was given. */
function ask(reason) {
  if (!asking) {
    asking = { reason };
    asking.answer = new Promise((resolve) => (asking.resolve = resolve));
    listeners.forEach((listener) => listener());
  }
  return asking.answer;
}

function settle(given) {
  const was = asking;
  asking = null;
  was?.resolve(given);
  listeners.forEach((listener) => listener());
}

// ---- Requests

/**
 * Sends a request with the token. Where the token is refused the question comes back, and the request goes on with the
 * new one. Throws as `fetch` does where no answer comes; otherwise the answer is returned, whatever it says.
 * @param {string} path
 * @param {object} [options] those of `fetch`
 * @param {number} [options.timeoutMs] how long an answer may take, each time; nobody is hurried who looks for a token
 * @param {() => void} [options.onSend] hears of each time before it; what it throws keeps the request back
 */
export async function request(path, { headers = {}, signal, timeoutMs, onSend, ...options } = {}) {
  for (;;) {
    onSend?.();
    const sent = token;
    const authorization = sent ? { Authorization: `Bearer ${sent}` } : {};
    const signals = [signal, timeoutMs && AbortSignal.timeout(timeoutMs)].filter(Boolean);
    const response = await fetch(path, { ...options, headers: { ...headers, ...authorization }, cache: 'no-store', signal: AbortSignal.any(signals) });
    if (response.status !== 401) return response;
    if (token !== sent) continue;
    if (options.method === 'POST') isDeclined = false;
    const refusal = await refusalOf(response);
    if (isDeclined || !(await ask(refusal.message))) throw refusal;
  }
}

/** What an answer that is no success says. */
export async function refusalOf(response) {
  const problem = await response.text().then(parse).catch(() => ({}));
  return new Refusal(response.status, problem, Number(response.headers.get('retry-after')) || 1);
}

/** A path with a query; what is empty is left out. */
export function url(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== '');
  const text = new URLSearchParams(given).toString();
  return text ? `${path}?${text}` : path;
}

/** What a query answers, as new as every write of this tab. Throws a `Refusal`, or as `fetch` does. */
export async function answerTo(path, query = {}, { fresh = true, ...options } = {}) {
  for (let tries = 1; ; tries++) {
    const response = await request(url(path, fresh ? { ...query, min_position: written } : query), options);
    if (response.ok) return response;
    const refusal = await refusalOf(response);
    if (!['projection_behind', 'rate_limited'].includes(refusal.code) || tries === TRIES_MAX) {
      if (fresh && refusal.code === 'projection_behind') await forgetWhatIsLost().catch(() => {});
      throw refusal;
    }
    if (refusal.status === 429) await new Promise((resolve) => setTimeout(resolve, refusal.retryAfterS * 1000));
  }
}

/** Reads JSON in the same way. */
export async function read(path, query, options) {
  const response = await answerTo(path, query, { timeoutMs: READ_MS_MAX, ...options });
  return parse(await response.text());
}

/** How far the log is with what this tab has written; what it reads is never older. */
let written = '';

export function wrote(position) {
  written = later(written, position);
}

/** A log that ends before what was written has another history, as after a restore: nothing waits for that any more. */
async function forgetWhatIsLost() {
  const sought = written;
  const { data } = await read('/v1/log/head', {}, { fresh: false });
  const end = data.map(({ partition, position }) => (data.length > 1 ? `${partition}:${position}` : `${position}`)).join(',');
  if (written === sought && later(end, sought) !== later(end, end)) written = '';
}

// ---- What is asked once

let known;

/** Every currency by its code: `{code, name, digits}`. */
export function currencies() {
  known ??= fetch('/console/currencies.json')
    .then((response) => (response.ok ? response.json() : Promise.reject(new Refusal(response.status))))
    .then((all) => new Map(all.map((currency) => [currency.code, currency])))
    .catch((error) => {
      known = undefined;
      throw error;
    });
  return known;
}
