// The API client: every request of the console goes through this file, with the caller's token and no other privilege.

import { maxPosition } from './position.js';
import { forget, renew } from './sign_in.js';

const TOKEN_STORAGE_KEY = 'passbook.token';
/** Tries per read. The server waits 2 s for a view that lags; after `rate_limited` the client waits before the next try. */
const TRIES_MAX = 5;
const READ_MS_MAX = 30_000;

/** An unsuccessful response, with the fields of its problem document. */
export class ApiError extends Error {
  /** @param {{retryAfterS?: number, scope?: string}} [headers] `scope` is the scope that the token lacks */
  constructor(status, problem = {}, { retryAfterS = 1, scope } = {}) {
    super(problem.detail || problem.title || `The service responded with status ${status}.`);
    const { code, title, errors: fields = [], balance, available, limit, maximum, used, remaining, reversible, index } = problem;
    Object.assign(this, { status, code, title, fields, balance, available, limit, maximum, used, remaining, reversible, index });
    this.accountId = problem.account_id;
    this.resetsAt = problem.resets_at;
    this.requestId = problem.request_id;
    this.retryAfterS = retryAfterS;
    this.scope = scope;
  }
}

// ---- The token. It is stored for this tab only and is removed with it.

let token = sessionStorage.getItem(TOKEN_STORAGE_KEY) ?? '';
let tokenPrompt = null;
let isDeclined = false;
/** How often the caller has changed. */
let callerChanges = 0;
const listeners = new Set();

/** The claims of the token, not verified; `null` without a token or if it is no JWT. */
function claims() {
  try {
    const payload = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (c) => c.charCodeAt(0))));
  } catch {
    return null;
  }
}

export const access = {
  /** Whether a token is stored. */
  hasToken: () => token !== '',
  /** The subject claim of the token. It is not verified here: only the service verifies tokens. */
  subject: () => String(claims()?.sub ?? ''),
  /**
   * The scopes of the token: a set, or `null` if they are unknown, without a token or with one that is no JWT. Like the subject
   * they only decide what the pages show.
   */
  scopes() {
    const all = claims();
    return all && new Set([all.scope, all.scp].flat().filter((text) => typeof text === 'string').flatMap((text) => text.split(' ')));
  },
  /** How often the caller of this tab has changed. Pages are remounted on a change, so no caller sees another's data. */
  callerChanges: () => callerChanges,
  /** While the token prompt is open: why a token is needed. Otherwise `undefined`. */
  get promptReason() {
    return tokenPrompt?.reason;
  },
  setToken(text) {
    const before = access.subject();
    token = text.trim().replace(/^bearer /i, '');
    sessionStorage.setItem(TOKEN_STORAGE_KEY, token);
    if (before && access.subject() !== before) callerChanges++;
    isDeclined = false;
    closePrompt(true);
  },
  decline() {
    isDeclined = true;
    closePrompt(false);
  },
  removeToken() {
    forget();
    token = '';
    sessionStorage.removeItem(TOKEN_STORAGE_KEY);
    callerChanges++;
    openPrompt('');
  },
  /** Opens the token prompt without a preceding 401 response. */
  prompt: () => openPrompt(''),
  onChange(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

/** Opens the token prompt. Resolves to whether the user entered a token. */
function openPrompt(reason) {
  if (!tokenPrompt) {
    tokenPrompt = { reason };
    tokenPrompt.answer = new Promise((resolve) => (tokenPrompt.resolve = resolve));
    listeners.forEach((listener) => listener());
  }
  return tokenPrompt.answer;
}

function closePrompt(hasToken) {
  const closed = tokenPrompt;
  tokenPrompt = null;
  closed?.resolve(hasToken);
  listeners.forEach((listener) => listener());
}

let renewal;

/** Replaces a refused token if the identity provider gives a new one without the user. Resolves to whether it did. */
function renewToken() {
  renewal ??= renew().then((renewed) => {
    if (renewed) access.setToken(renewed);
    return renewed !== null;
  }).finally(() => (renewal = undefined));
  return renewal;
}

// ---- Requests

/**
 * Sends a request with the token. After a 401 response the token prompt opens, and the request is sent again with the new
 * token. Returns every other response, whatever its status. Throws as `fetch` does if there is no response.
 * @param {string} path
 * @param {object} [options] the options of `fetch`
 * @param {number} [options.timeoutMs] timeout of each attempt; the time that the token prompt is open does not count
 * @param {() => void} [options.onSend] called before each attempt; if it throws, the attempt is not sent
 */
export async function request(path, { headers = {}, signal, timeoutMs, onSend, ...options } = {}) {
  let isRenewed = false;
  for (;;) {
    onSend?.();
    const sent = token;
    const authorization = sent ? { Authorization: `Bearer ${sent}` } : {};
    const signals = [signal, timeoutMs && AbortSignal.timeout(timeoutMs)].filter(Boolean);
    const response = await fetch(path, { ...options, headers: { ...headers, ...authorization }, cache: 'no-store', signal: AbortSignal.any(signals) });
    if (response.status !== 401) return response;
    if (token !== sent) continue;
    // A renewed token that is refused too is not renewed again.
    if (sent && !isRenewed && (isRenewed = await renewToken())) continue;
    if (options.method && options.method !== 'GET') isDeclined = false;
    const error = await toApiError(response);
    if (isDeclined || !(await openPrompt(error.message))) throw error;
  }
}

/** Converts an unsuccessful response into an `ApiError`. */
export async function toApiError(response) {
  const problem = await response.text().then(parse).catch(() => ({}));
  const scope = response.headers.get('www-authenticate')?.match(/scope="([^"]+)"/)?.[1];
  return new ApiError(response.status, problem, { retryAfterS: Number(response.headers.get('retry-after')) || 1, scope });
}

/** A path with query parameters; empty ones are omitted. */
export function url(path, query = {}) {
  const entries = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== '');
  const text = new URLSearchParams(entries).toString();
  return text ? `${path}?${text}` : path;
}

/**
 * The response to a GET request. With `fresh`, it includes every write of this tab. Throws an `ApiError`, or what `fetch`
 * throws.
 */
export async function get(path, query = {}, { fresh = true, ...options } = {}) {
  for (let tries = 1; ; tries++) {
    const response = await request(url(path, fresh ? { ...query, min_position: lastWrite } : query), options);
    if (response.ok) return response;
    const error = await toApiError(response);
    if (!['projection_behind', 'rate_limited'].includes(error.code) || tries === TRIES_MAX) {
      if (fresh && error.code === 'projection_behind') await discardLostPosition().catch(() => {});
      throw error;
    }
    if (error.status === 429) await new Promise((resolve) => setTimeout(resolve, error.retryAfterS * 1000));
  }
}

/** Like `get`, but resolves to the parsed JSON body. */
export async function read(path, query, options) {
  const response = await get(path, query, { timeoutMs: READ_MS_MAX, ...options });
  return parse(await response.text());
}

/**
 * Parses JSON without loss: an integer that a Number cannot represent exactly becomes a BigInt. Bank-wide sums can be that large.
 * @param {string} text
 */
function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const isLossy = typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value);
    return isLossy && context?.source && /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
  });
}

/** The position of this tab's latest write. Fresh reads are never older than it. */
let lastWrite = '';

export function recordWrite(position) {
  lastWrite = maxPosition(lastWrite, position);
}

/** If the log ends before the latest write, as after a restore, that position will not come back: discards it. */
async function discardLostPosition() {
  const checked = lastWrite;
  const { data } = await read('/v1/log/head', {}, { fresh: false });
  const head = data.map(({ position }) => position).reduce(maxPosition, '');
  if (lastWrite === checked && maxPosition(head, checked) !== maxPosition(head, head)) lastWrite = '';
}

// ---- Currencies, loaded once

let loadedCurrencies;

/** Every currency by its code: `{code, name, digits, withdrawn}`. No account can be opened in a withdrawn currency. */
export function currencies() {
  loadedCurrencies ??= fetch('/console/currencies.json')
    .then((response) => (response.ok ? response.json() : Promise.reject(new ApiError(response.status))))
    .then((all) => new Map(all.map((currency) => [currency.code, currency])))
    .catch((error) => {
      loadedCurrencies = undefined;
      throw error;
    });
  return loadedCurrencies;
}
