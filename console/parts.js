// What several pages are made of: markup, times, money, notices, and how data are loaded and kept fresh.

import { Fragment, h, render } from './vendor/preact.js';
import { useCallback, useEffect, useMemo, useRef, useState } from './vendor/hooks.js';
import htm from './vendor/htm.js';
import { currencies } from './api.js';
import { formatMoney } from './money.js';

export const html = htm.bind(h);
export { Fragment, render, useCallback, useEffect, useMemo, useRef, useState };

const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const NUMBER = new Intl.NumberFormat();

/** A time of the API in the reader's zone; in UTC, to the microsecond, for whoever points at it. */
export function Time({ at, clock }) {
  if (!at) return null;
  const utc = at.replace('T', ' ').replace('Z', ' UTC');
  return html`<time datetime=${at} title=${utc} class=${clock ? 'clock' : undefined}>${(clock ? CLOCK : DATE_TIME).format(new Date(at))}</time>`;
}

export const timeText = (at) => DATE_TIME.format(new Date(at));
export const number = (value) => NUMBER.format(value);

/** An amount in minor units; nothing while its currency is not known. */
export function Money({ minor, currency, sign = '' }) {
  const list = useCurrencies();
  if (!list || !currency) return html`<span class="money">…</span>`;
  return html`<span class="money">${sign}${formatMoney(minor, list.get(currency))}</span>`;
}

export function useCurrencies() {
  const [list, setList] = useState(null);
  useEffect(() => void currencies().then(setList, () => {}), []);
  return list;
}

export function Status({ status }) {
  return html`<span class=${`status ${status}`}>${status}</span>`;
}

/** An account's id, short, with the whole of it for whoever needs it. */
export function AccountLink({ id }) {
  return html`<a href=${`#/accounts/${id}`} title=${id} class="id">${shortId(id)}</a>`;
}

/** An owner, and the way to all their accounts. */
export function OwnerLink({ owner, children }) {
  return html`<a href=${`#/accounts?owner=${encodeURIComponent(owner)}`}>${children ?? owner}</a>`;
}

/** The end of an id tells accounts apart: the beginning is the time at which they were opened. */
export const shortId = (id) => `…${id.slice(-12)}`;

/** A failure in the service's own words. */
export function Failure({ error, retry }) {
  if (!error) return null;
  return html`<div class="notice bad" role="alert">
    ${error.title && html`<strong>${error.title}. </strong>`}${said(error)}
    ${retry && html` <button type="button" class="quiet" onClick=${retry}>Try again</button>`}
  </div>`;
}

/** What a person reads of an error: the API's own words, or that there was no answer at all. */
export function said(error) {
  if (error.title || error.status) return sentence(error.message);
  return 'The service does not answer.';
}

export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.') : '');

/**
 * Loads, and again whenever `parts` change or `reload` is called. What was there stays until the new is there.
 * @param {(signal: AbortSignal) => Promise<any>} load
 */
export function useLoad(load, parts) {
  const [state, setState] = useState({ data: undefined, error: null, isLoading: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    const set = (next) => !control.signal.aborted && setState(next);
    set((before) => ({ ...before, isLoading: true }));
    load(control.signal).then(
      (data) => set({ data, error: null, isLoading: false }),
      (error) => set((before) => ({ ...before, error, isLoading: false })),
    );
    return () => control.abort();
  }, [...parts, turn]);
  const reload = useCallback(() => setTurn((turn) => turn + 1), []);
  return { ...state, reload };
}

/** Calls `tick` every so often, for as long as somebody can see the page. */
export function useEvery(ms, tick) {
  const latest = useRef(tick);
  latest.current = tick;
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === 'visible' && latest.current(), ms);
    return () => clearInterval(timer);
  }, [ms]);
}

/** After so many rows a list goes on only where somebody asks for it. */
const ROWS_UNASKED_MAX = 1000;

/** A list that goes on behind a cursor: `page(after, signal)` answers `{data, next}`. */
export function usePages(page, parts) {
  const [state, setState] = useState({ rows: [], next: null, error: null, isLoading: true });
  const control = useRef(null);
  const more = async (after) => {
    control.current?.abort();
    const mine = (control.current = new AbortController());
    setState((before) => ({ ...before, isLoading: true, error: null }));
    try {
      const { data, next } = await page(after, mine.signal);
      if (mine.signal.aborted) return;
      setState((before) => {
        // A list that was begun anew meanwhile does not go on here.
        if (after !== undefined && before.next !== after) return { ...before, isLoading: false };
        return { rows: after === undefined ? data : [...before.rows, ...data], next, error: null, isLoading: false };
      });
    } catch (error) {
      if (!mine.signal.aborted) setState((before) => ({ ...before, error, failed: after, isLoading: false }));
    }
  };
  useEffect(() => {
    more();
    return () => control.current?.abort();
  }, parts);
  /** Puts what is new before what is there, so that nobody who reads further down is thrown back. */
  const refresh = async (keyOf) => {
    if (state.rows.length === 0) return more();
    const mine = control.current;
    const { data, next } = await page(undefined, mine.signal);
    mine.signal.throwIfAborted();
    setState((before) => {
      const known = new Set(before.rows.map(keyOf));
      const fresh = data.filter((row) => !known.has(keyOf(row)));
      const joins = fresh.length < data.length;
      return joins ? { ...before, rows: [...fresh, ...before.rows] } : { rows: data, next, error: null, isLoading: false };
    });
    return undefined;
  };
  return { ...state, more: () => more(state.next), retry: () => more(state.failed), refresh };
}

/** The end of such a list, and the way on: by a button, or `unasked` where one scrolls to it. */
export function More({ list, what, unasked = false }) {
  const mark = useRef(null);
  const latest = useRef(null);
  latest.current = list;
  useEffect(() => {
    if (!unasked) return undefined;
    const watcher = new IntersectionObserver(([entry]) => {
      const { next, isLoading, error, rows, more } = latest.current;
      if (entry.isIntersecting && next && !isLoading && !error && rows.length < ROWS_UNASKED_MAX) more();
    }, { rootMargin: '400px' });
    if (mark.current) watcher.observe(mark.current);
    return () => watcher.disconnect();
  }, [list.next]);
  return html`<div ref=${mark} class="more">
    <${Failure} error=${list.error} retry=${list.retry} />
    ${list.next && !list.error && html`<button type="button" class="quiet" disabled=${list.isLoading} onClick=${list.more}>
      ${list.isLoading ? 'Loading…' : `More ${what}`}
    </button>`}
    ${!list.next && !list.isLoading && !list.error && list.rows.length > 0 && html`<p class="faint">These are all.</p>`}
  </div>`;
}

/** A field with its label, and beside it what is wrong with it or how it was read. */
export function Field({ id, label, error, note, hint, children }) {
  return html`<div class=${`field${error ? ' wrong' : ''}`}>
    <label for=${id}>${label}</label>
    ${children}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${/* Read out as it changes. */ ''}
    <div class="note" id=${`${id}-note`} aria-live="polite">${error ? html`<p class="error">${error}</p>` : note}</div>
  </div>`;
}

/** What an input of such a field says of itself. */
export const described = (id, error, hint) => ({
  id,
  name: id,
  'aria-describedby': hint ? `${id}-hint ${id}-note` : `${id}-note`,
  'aria-invalid': error ? 'true' : undefined,
});
