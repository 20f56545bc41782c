// Shared building blocks of the pages: markup, formatting, notices, form fields, data loading and paging.

import { Fragment, h, render } from './vendor/preact.js';
import { useCallback, useEffect, useMemo, useRef, useState } from './vendor/hooks.js';
import htm from './vendor/htm.js';
import { currencies } from './api.js';
import { formatMoney } from './money.js';
import { describe } from './problems.js';

export const html = htm.bind(h);
export { Fragment, render, useCallback, useEffect, useMemo, useRef, useState };

const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const NUMBER = new Intl.NumberFormat();

/** An API timestamp in the reader's time zone. The tooltip shows it in UTC with microseconds. */
export function Time({ at, clock }) {
  if (!at) return null;
  const utc = at.replace('T', ' ').replace('Z', ' UTC');
  return html`<time datetime=${at} title=${utc} class=${clock ? 'clock' : undefined}>${(clock ? CLOCK : DATE_TIME).format(new Date(at))}</time>`;
}

export const formatTime = (at) => DATE_TIME.format(new Date(at));
export const formatClock = (at) => CLOCK.format(new Date(at));
export const formatNumber = (value) => NUMBER.format(value);

/** An amount in minor units; an ellipsis until the currency list is loaded. */
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

/** A link to an account that shows the short ID, with the full ID as tooltip. */
export function AccountLink({ id, full }) {
  return html`<a href=${`#/accounts/${id}`} title=${id} class=${full ? 'id break' : 'id'}>${full ? id : shortId(id)}</a>`;
}

/** The metadata of an account, a hold or a transaction. */
export function Metadata({ pairs }) {
  const entries = Object.entries(pairs ?? {});
  if (entries.length === 0) return null;
  return html`<p class="metadata">${entries.map(([key, value]) => html`<span key=${key} class="chip"><span class="muted">${key}</span> ${value}</span> `)}</p>`;
}

/** A link to the page of an owner with all their accounts. */
export function OwnerLink({ owner, children }) {
  return html`<a href=${`#/owners/${encodeURIComponent(owner)}`}>${children ?? owner}</a>`;
}

/** The last 12 characters: IDs start with their creation time, so only the end differs between accounts. */
export const shortId = (id) => `…${id.slice(-12)}`;

/** An error with an optional retry button. */
export function ErrorNotice({ error, retry, currency }) {
  if (!error) return null;
  return html`<div class="notice bad" role="alert">${describe(error, { currency })}
    ${retry && html` <button type="button" class="secondary" onClick=${retry}>Try again</button>`}
  </div>`;
}

/**
 * Says that figures which are still shown could not be read again, and since when. The page repeats the request by itself.
 * @param {{resource: {data: any, error: Error | null, loadedAt: number}}} props of `useLoad`
 */
export function StaleNotice({ resource: { data, error, loadedAt } }) {
  if (!error || data === undefined) return null;
  return html`<p class="notice warn" role="alert"><strong>Not up to date:</strong> these figures are from ${CLOCK.format(loadedAt)}. ${describe(error)} This page tries again by itself.</p>`;
}

/** Whether a later attempt can succeed without a change by the user: no response, a failure of the service, or too many requests. */
const isTransient = ({ status }) => !status || status >= 500 || status === 429;

/** The pause before a failed request of a page is repeated. */
const RETRY_MS = 3_000;

/**
 * Loads data when a dependency changes or `reload` is called. The previous data stay visible until the new data arrive. A request
 * without a response is repeated. `loadedAt` is the time of the data.
 * @param {(signal: AbortSignal) => Promise<any>} load
 */
export function useLoad(load, dependencies) {
  const [state, setState] = useState({ data: undefined, error: null, isLoading: true, loadedAt: undefined });
  const [loads, setLoads] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    const set = (next) => !control.signal.aborted && setState(next);
    set((before) => ({ ...before, isLoading: true }));
    load(control.signal).then(
      (data) => set({ data, error: null, isLoading: false, loadedAt: Date.now() }),
      (error) => set((before) => ({ ...before, error, isLoading: false })),
    );
    return () => control.abort();
  }, [...dependencies, loads]);
  const reload = useCallback(() => setLoads((count) => count + 1), []);
  useRetry(state.error, reload);
  return { ...state, reload };
}

/** Renders the component again when `source` changes. */
export function useChanges(source) {
  const [, setChanges] = useState(0);
  useEffect(() => source.onChange(() => setChanges((count) => count + 1)), []);
}

/** Calls `retry` after a pause if a request failed for a reason that can pass. */
function useRetry(error, retry) {
  useEffect(() => {
    if (!error || !isTransient(error)) return undefined;
    const timer = setTimeout(retry, RETRY_MS);
    return () => clearTimeout(timer);
  }, [error]);
}

/** Calls `tick` every `ms` milliseconds while the browser tab is visible. */
export function useInterval(ms, tick) {
  const latest = useRef(tick);
  latest.current = tick;
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === 'visible' && latest.current(), ms);
    return () => clearInterval(timer);
  }, [ms]);
}

/** A list loads on scroll up to this many rows. Beyond it, each page needs a click. */
const AUTO_LOAD_ROWS_MAX = 1000;

/**
 * A list that is loaded page by page: `loadPage(after, signal)` resolves to `{data, next}`. While the first page of other
 * dependencies is loading, the rows are outdated; if it fails, they are removed.
 */
export function usePages(loadPage, dependencies) {
  const [state, setState] = useState({ rows: [], next: null, error: null, isLoading: true, isOutdated: false });
  const control = useRef(null);
  const loadMore = async (after, isOther = false) => {
    control.current?.abort();
    const own = (control.current = new AbortController());
    setState((before) => ({ ...before, isLoading: true, error: null, isOutdated: isOther || before.isOutdated }));
    try {
      const { data, next } = await loadPage(after, own.signal);
      if (own.signal.aborted) return;
      setState((before) => {
        // The list was reset while this page was loading, so the page does not continue it.
        if (after !== undefined && before.next !== after) return { ...before, isLoading: false };
        return { rows: after === undefined ? data : [...before.rows, ...data], next, error: null, isLoading: false, isOutdated: false };
      });
    } catch (error) {
      if (!own.signal.aborted) setState((before) => ({ ...before, ...(before.isOutdated && { rows: [], next: null, isOutdated: false }), error, failed: after, isLoading: false }));
    }
  };
  useEffect(() => {
    loadMore(undefined, true);
    return () => control.current?.abort();
  }, dependencies);
  useRetry(state.error, () => loadMore(state.failed));
  /** Prepends new rows and keeps the loaded ones, so that the reader's scroll position is preserved. */
  const refresh = async (keyOf) => {
    if (state.rows.length === 0) return loadMore();
    const own = control.current;
    const { data, next } = await loadPage(undefined, own.signal);
    own.signal.throwIfAborted();
    setState((before) => {
      const known = new Set(before.rows.map(keyOf));
      const fresh = data.filter((row) => !known.has(keyOf(row)));
      const overlaps = fresh.length < data.length;
      return overlaps ? { ...before, rows: [...fresh, ...before.rows] } : { rows: data, next, error: null, isLoading: false, isOutdated: false };
    });
    return undefined;
  };
  return { ...state, reload: () => loadMore(), loadMore: () => loadMore(state.next), retry: () => loadMore(state.failed), refresh };
}

/** The footer of a paged list: a button for the next page. With `autoLoad`, scrolling to it loads the page too. */
export function ListFooter({ list, itemsLabel, autoLoad = false }) {
  const footer = useRef(null);
  const latest = useRef(null);
  latest.current = list;
  useEffect(() => {
    if (!autoLoad) return undefined;
    const observer = new IntersectionObserver(([entry]) => {
      const { next, isLoading, error, rows, loadMore } = latest.current;
      if (entry.isIntersecting && next && !isLoading && !error && rows.length < AUTO_LOAD_ROWS_MAX) loadMore();
    }, { rootMargin: '400px' });
    if (footer.current) observer.observe(footer.current);
    return () => observer.disconnect();
  }, [list.next]);
  return html`<div ref=${footer} class="list-footer">
    <${ErrorNotice} error=${list.error} retry=${list.retry} />
    ${list.next && !list.error && html`<button type="button" class="secondary" disabled=${list.isLoading} onClick=${list.loadMore}>
      ${list.isLoading ? 'Loading…' : `Load more ${itemsLabel}`}
    </button>`}
    ${!list.next && !list.isLoading && !list.error && list.rows.length > 0 && html`<p class="muted">End of list</p>`}
  </div>`;
}

/** Copies a text. Without a clipboard, as on a page without TLS, it says so. */
export function CopyButton({ text, label = 'Copy ID' }) {
  const [outcome, setOutcome] = useState('');
  const copy = () => (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => setOutcome('Copied'), () => setOutcome('Select and copy it by hand'));
  return html`<button type="button" class="secondary small" onClick=${copy}>${label}</button> <span role="status" class="muted">${outcome}</span>`;
}

/** Whether the component is still shown: a function that an answer which arrives later can ask. */
export function useIsUnmounted() {
  const isUnmounted = useRef(false);
  useEffect(() => () => void (isUnmounted.current = true), []);
  return useCallback(() => isUnmounted.current, []);
}

/** A panel over the page, opened by the address of the page and closed by its button, Escape or a click beside it. */
export function Drawer({ id, title, close, children }) {
  const dialog = useRef(null);
  useEffect(() => {
    const opener = document.activeElement;
    dialog.current.showModal();
    return () => opener?.isConnected && opener.focus();
  }, []);
  const onClick = (event) => event.target === dialog.current && close();
  return html`<dialog ref=${dialog} class="drawer" aria-labelledby=${`${id}-title`} onCancel=${(event) => (event.preventDefault(), close())} onClick=${onClick}>
    <div class="drawer-content">
      <div class="heading"><h2 id=${`${id}-title`}>${title}</h2><button type="button" class="secondary no-print" onClick=${close}>Close</button></div>
      ${children}
    </div>
  </dialog>`;
}

/** A labelled form field with an optional hint, and a note or an error below it. */
export function Field({ id, label, error, note, hint, children }) {
  return html`<div class=${`field${error ? ' invalid' : ''}`}>
    <label for=${id}>${label}</label>
    ${children}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${/* aria-live: screen readers announce each change. */ ''}
    <div class="note" id=${`${id}-note`} aria-live="polite">${error ? html`<p class="error">${error}</p>` : note}</div>
  </div>`;
}

/** The attributes that connect an input to the hint, the note and the error of its `Field`. */
export const inputProps = (id, error, hint) => ({
  id,
  name: id,
  'aria-describedby': hint ? `${id}-hint ${id}-note` : `${id}-note`,
  'aria-invalid': error ? 'true' : undefined,
});
