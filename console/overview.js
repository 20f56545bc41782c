// The overview of the bank: account counts, money by currency, command throughput and the live event feed.

import { AccountLink, ErrorNotice, Money, StaleNotice, Time, formatClock, formatNumber, formatTime, html, shortId, useEffect, useInterval, useLoad, useMemo, useRef, useState } from './components.js';
import { read, request, toApiError, url } from './api.js';
import { Chart, themeColor } from './chart.js';
import { amountOf, eventLabel } from './labels.js';
import { permissions } from './permissions.js';
import { eventCount } from './position.js';
import { webhookAddress } from './route.js';
import { subscribe } from './sse.js';

const REFRESH_MS = 2_000;
const FEED_ROWS = 50;
/** The feed renders new events in batches, so that it stays readable at a high event rate. */
const FEED_RENDER_MS = 500;
/** The number of existing events that the feed starts with. */
const FEED_INITIAL_EVENTS = 20;

/** Turns a 403 response into data: a missing scope is not a failure of the page. */
const orForbidden = (promise) => promise.catch((error) => (error.status === 403 ? { forbidden: error } : Promise.reject(error)));

/** Data that this token may read; otherwise nothing is requested. */
const ifPermitted = (isPermitted, load) => (isPermitted ? orForbidden(load()) : Promise.resolve({ forbidden: true }));

export function Overview() {
  const bank = useLoad((signal) => read('/v1/overview', {}, { signal }), []);
  const log = useLoad((signal) => ifPermitted(permissions.audit(), () => read('/v1/log/head', {}, { signal, fresh: false })), []);
  const views = useLoad((signal) => ifPermitted(permissions.operations(), () => read('/v1/projections', {}, { signal, fresh: false })), []);
  // What the token may not read is not requested again: another token mounts the page anew.
  const isRefused = ({ data, error }) => data?.forbidden || error?.status === 403;
  useInterval(REFRESH_MS, () => [bank, log, views].forEach((resource) => resource.isLoading || isRefused(resource) || resource.reload()));
  const isEmpty = bank.data && Object.values(bank.data.accounts).every((count) => count === 0);
  if (bank.error?.status === 403) return html`<h1 tabindex="-1">Overview</h1><${ErrorNotice} error=${bank.error} /><p><a href="#/accounts">Go to your accounts</a></p>`;
  return html`<h1 tabindex="-1">Overview</h1>
    ${bank.data ? html`<${StaleNotice} resource=${bank} />` : html`<${ErrorNotice} error=${bank.error} retry=${bank.reload} />`}
    ${isEmpty && permissions.open() && html`<section class="card" aria-labelledby="first"><h2 id="first">This bank has no accounts yet</h2>
      <p class="muted">Open the first one. Deposits, transfers and everything else then start on its page.</p>
      <p class="buttons"><a class="button" href="#/accounts?open=yes">Open the first account</a></p></section>`}
    <div class=${`tiles${bank.data && bank.error ? ' stale' : ''}`}>
      <${Tile} label="Open accounts" value=${bank.data && formatNumber(bank.data.accounts.open)} />
      <${Tile} label="Frozen" value=${bank.data && formatNumber(bank.data.accounts.frozen)} />
      <${Tile} label="Closed" value=${bank.data && formatNumber(bank.data.accounts.closed)} />
      ${permissions.audit() && !log.data?.forbidden && html`<${LogSizeTile} log=${log} />`}
      ${permissions.operations() && !views.data?.forbidden && html`<${ViewLagTile} views=${views} />`}
    </div>
    <div class=${`columns${bank.data && bank.error ? ' stale' : ''}`}>
      <section class="card" aria-labelledby="throughput"><h2 id="throughput">Commands</h2><${ThroughputChart} buckets=${bank.data?.commands} /></section>
      <section class="card" aria-labelledby="money"><h2 id="money">Money by currency</h2><${MoneyByCurrency} money=${bank.data?.money} held=${bank.data?.held} /></section>
    </div>
    ${!permissions.audit() || log.data?.forbidden
      ? html`<section class="card" aria-labelledby="feed"><h2 id="feed">Latest events</h2><p class="muted">Your access token does not permit reading events (scope <code>audit:read</code>).</p></section>`
      : html`<${EventFeed} />`}`;
}

function Tile({ label, value = '…', note }) {
  return html`<div class="tile"><p class="label">${label}</p><p class="value">${value}</p>${note && html`<p class="muted">${note}</p>`}</div>`;
}

/** When a figure was read that could not be read again. */
const staleSince = ({ error, loadedAt }) => error && loadedAt && `as of ${formatClock(loadedAt)}`;

function LogSizeTile({ log }) {
  const total = log.data?.data.reduce((sum, head) => sum + eventCount(head.position), 0);
  return html`<${Tile} label="Events in the log" value=${total !== undefined ? formatNumber(total) : '…'} note=${staleSince(log)} />`;
}

function ViewLagTile({ views }) {
  const serving = views.data?.data.filter((view) => view.state === 'live' || view.state === 'stopped') ?? [];
  const stopped = serving.find((view) => view.state === 'stopped');
  if (!views.data) return html`<${Tile} label="View lag" />`;
  const events = Math.max(0, ...serving.map((view) => view.lag_events));
  const seconds = Math.max(0, ...serving.map((view) => view.lag_seconds));
  const note = views.error ? staleSince(views) : stopped ? `The view ${stopped.name} has stopped.` : events === 0 ? 'Up to date' : `for ${seconds.toFixed(1)} s`;
  return html`<${Tile} label="View lag" value=${`${formatNumber(events)} event${events === 1 ? '' : 's'}`} note=${note} />`;
}

function MoneyByCurrency({ money, held = {} }) {
  const rows = Object.entries(money ?? {});
  if (money && rows.length === 0) return html`<p class="muted">No accounts.</p>`;
  const hasHolds = Object.values(held).some((minor) => minor !== '0');
  return html`<table>
    <caption class="visually-hidden">Total balance of all accounts by currency</caption>
    <thead><tr><th scope="col">Currency</th><th scope="col" class="end">Total balance</th>${hasHolds && html`<th scope="col" class="end">On hold</th>`}</tr></thead>
    <tbody>${rows.map(([code, minor]) => html`<tr key=${code}>
      <th scope="row"><a href=${`#/accounts?currency=${code}`}>${code}</a></th><td class="end"><${Money} minor=${minor} currency=${code} /></td>
      ${hasHolds && html`<td class="end"><${Money} minor=${held[code] ?? '0'} currency=${code} /></td>`}
    </tr>`)}</tbody>
  </table>`;
}

/** Commands per second with their p50 and p99 latency. */
function ThroughputChart({ buckets }) {
  const data = useMemo(() => buckets && [
    buckets.map((bucket) => Date.parse(bucket.from) / 1000),
    buckets.map((bucket) => bucket.per_second),
    buckets.map((bucket) => bucket.p50_ms),
    buckets.map((bucket) => bucket.p99_ms),
  ], [buckets]);
  if (!buckets) return html`<div class="chart"></div>`;
  const latest = buckets.at(-2) ?? buckets.at(-1);
  const figures = latest.p50_ms === null ? 'none in the last ten seconds' :
    `${formatNumber(latest.per_second)} per second, p50 ${latest.p50_ms.toFixed(1)} ms, p99 ${latest.p99_ms.toFixed(1)} ms`;
  const options = () => ({
    scales: { x: {}, y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] }, ms: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
    axes: [{}, { size: 60 }, { scale: 'ms', side: 1, size: 60, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => `${tick} ms`) }],
    series: [
      { label: 'Time', value: (_, value) => (value ? formatTime(value * 1000) : '–') },
      { label: 'Commands per second', stroke: themeColor('accent'), fill: themeColor('accent-soft'), width: 2 },
      { label: 'p50 (ms)', scale: 'ms', stroke: themeColor('ink'), width: 1.5, points: { show: true, size: 4, fill: themeColor('ink') } },
      { label: 'p99 (ms)', scale: 'ms', stroke: themeColor('warn'), width: 1.5, dash: [4, 3], points: { show: true, size: 4, fill: themeColor('warn') } },
    ],
  });
  return html`<p class="muted">Last ten minutes on this instance: ${figures}.</p>
    <${Chart} label=${`Commands in the last ten minutes: ${figures}`} options=${options} data=${data} />`;
}

// ---- The event feed

const STATE_LABELS = { connecting: 'Connecting…', live: 'Live', waiting: 'Connection lost. Reconnecting…' };

/** Buffers the newest events as text and parses only the rows that are rendered. */
function useFeed() {
  const [state, setState] = useState({ state: 'connecting', error: null });
  const [rows, setRows] = useState([]);
  const [isPaused, setPaused] = useState(false);
  const paused = useRef(false);
  paused.current = isPaused;
  const buffer = useRef([]);
  useEffect(() => {
    const control = new AbortController();
    let streamUrl;
    const connect = async (lastEventId, signal) => {
      streamUrl ??= url('/v1/events/stream', await startPosition(signal));
      const response = await request(streamUrl, { signal, headers: lastEventId ? { 'Last-Event-ID': lastEventId } : {} });
      if (response.ok) return response;
      const error = await toApiError(response);
      // The log was replaced, for example by a restore: restart the feed near its new end.
      if (response.status === 400) {
        streamUrl = undefined;
        setRows([]);
      }
      if (response.status === 403) control.abort();
      if (response.status === 403) setState({ state: 'forbidden', error });
      throw error;
    };
    subscribe(connect, ({ data }) => {
      buffer.current.push(data);
      if (buffer.current.length > 2 * FEED_ROWS) buffer.current.splice(0, FEED_ROWS);
    }, (state, error) => setState({ state, error }), control.signal);
    const timer = setInterval(() => {
      if (paused.current || buffer.current.length === 0) return;
      const fresh = buffer.current.splice(0).slice(-FEED_ROWS).map((text) => JSON.parse(text)).reverse();
      setRows((before) => [...fresh, ...before].slice(0, FEED_ROWS));
    }, FEED_RENDER_MS);
    return () => (control.abort(), clearInterval(timer));
  }, []);
  return { ...state, rows, isPaused, setPaused };
}

/** The cursor at which the feed starts: a few events before the end of each partition. */
async function startPosition(signal) {
  const { data } = await read('/v1/log/head', {}, { signal, fresh: false });
  const eventsBefore = Math.ceil(FEED_INITIAL_EVENTS / data.length);
  const starts = data.map(({ partition, position }) => ({ partition, start: Math.max(0, eventCount(position) - eventsBefore) }));
  return { after: starts.length > 1 ? starts.map(({ partition, start }) => `${partition}:${start}`).join(',') : starts[0].start };
}

function EventFeed() {
  const feed = useFeed();
  const currencyOf = useAccountCurrencies(feed.rows);
  const state = feed.isPaused ? 'Paused' : (STATE_LABELS[feed.state] ?? '');
  if (feed.state === 'forbidden') return html`<section class="card" aria-labelledby="feed"><h2 id="feed">Latest events</h2><${ErrorNotice} error=${feed.error} /></section>`;
  return html`<section class="card" aria-labelledby="feed">
    <div class="heading"><h2 id="feed">Latest events</h2>
      <p class=${`state ${feed.isPaused ? 'paused' : feed.state}`} role="status">${state}</p>
      <button type="button" class="secondary" aria-pressed=${feed.isPaused} onClick=${() => feed.setPaused(!feed.isPaused)}>${feed.isPaused ? 'Resume' : 'Pause'}</button>
    </div>
    <div class="table-scroll" tabindex="0" role="group" aria-label="Events, newest first">
    <table>
      <caption class="visually-hidden">The latest events of all accounts</caption>
      <thead><tr><th scope="col">Time</th><th scope="col">Event</th><th scope="col" class="end">Amount</th><th scope="col">Account</th><th scope="col">User</th><th scope="col" class="end">Position</th></tr></thead>
      <tbody>${feed.rows.map((event) => html`<${FeedRow} key=${event.id} event=${event} currency=${currencyOf(event)} />`)}</tbody>
    </table></div>
    ${feed.rows.length === 0 && html`<p class="muted">No events yet.</p>`}
  </section>`;
}

function FeedRow({ event, currency }) {
  const amount = amountOf(event);
  return html`<tr>
    <td><${Time} at=${event.recorded_at} clock /></td><td>${eventLabel(event.type)}</td>
    <td class="end">${amount && html`<${Money} ...${amount} currency=${currency} />`}</td><td><${SubjectLink} event=${event} /></td><td class="name">${event.metadata.user_id}</td><td class="end">${event.position}</td>
  </tr>`;
}

/** A link to what the event is about. Not every event is one of an account. */
function SubjectLink({ event: { aggregate_type: type, aggregate_id: id } }) {
  if (type === 'BankAccount') return html`<${AccountLink} id=${id} />`;
  if (type === 'Webhook' && permissions.webhooks()) return html`<a href=${webhookAddress(id)} class="id" title=${id}>${shortId(id)}</a>`;
  return null;
}

/** Concurrent account look-ups: the feed must not load the service. */
const LOOKUPS_MAX = 2;
/** The pause before a failed look-up is repeated. */
const LOOKUP_RETRY_MS = 5_000;
const currencyById = new Map();

/** Finds the currency of the accounts in the feed: events contain amounts, but only opening events contain the currency. */
function useAccountCurrencies(rows) {
  const [, setLookups] = useState(0);
  const running = useRef(0);
  const isUnmounted = useRef(false);
  useEffect(() => () => void (isUnmounted.current = true), []);
  const startLookup = () => {
    const unknown = rows.find((event) => !currencyById.has(event.aggregate_id) && amountOf(event));
    if (!unknown || running.current >= LOOKUPS_MAX || isUnmounted.current) return;
    const id = unknown.aggregate_id;
    currencyById.set(id, null);
    running.current++;
    read(`/v1/accounts/${id}`)
      .then((account) => currencyById.set(id, account.currency), () => void setTimeout(() => currencyById.delete(id), LOOKUP_RETRY_MS))
      .finally(() => (running.current--, isUnmounted.current || setLookups((count) => count + 1)));
  };
  useEffect(() => {
    for (const { type, aggregate_id, data } of rows) if (type === 'AccountOpened') currencyById.set(aggregate_id, data.currency);
    for (let n = 0; n < LOOKUPS_MAX; n++) startLookup();
  });
  return ({ aggregate_id }) => currencyById.get(aggregate_id);
}
