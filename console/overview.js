// The bank at a glance, alive.

import { AccountLink, Failure, Money, Time, html, number, useEffect, useEvery, useLoad, useMemo, useRef, useState } from './parts.js';
import { access, read, refusalOf, request, url } from './api.js';
import { Chart, colour } from './chart.js';
import { follow } from './sse.js';
import { moved, word } from './words.js';

const REFRESH_MS = 2_000;
const FEED_ROWS = 50;
/** New events are shown in steps, so that a busy bank can be read at all. */
const FEED_STEP_MS = 500;
/** Events of the past that the feed begins with. */
const FEED_BEFORE = 20;

/** What one may not see is no failure of the page. */
const unlessForbidden = (promise) => promise.catch((error) => (error.status === 403 ? { forbidden: error } : Promise.reject(error)));

export function Overview() {
  const bank = useLoad((signal) => read('/v1/overview', {}, { signal }), []);
  const log = useLoad((signal) => unlessForbidden(read('/v1/log/head', {}, { signal, fresh: false })), []);
  const views = useLoad((signal) => unlessForbidden(read('/v1/projections', {}, { signal, fresh: false })), []);
  useEvery(REFRESH_MS, () => [bank, log, views].forEach((each) => each.isLoading || each.reload()));
  return html`<h1 tabindex="-1">Overview</h1>
    <${Failure} error=${bank.error} retry=${bank.reload} />
    <div class="tiles">
      <${Figure} word="Open accounts" value=${bank.data && number(bank.data.accounts.open)} />
      <${Figure} word="Frozen" value=${bank.data && number(bank.data.accounts.frozen)} />
      <${Figure} word="Closed" value=${bank.data && number(bank.data.accounts.closed)} />
      <${Head} log=${log} />
      <${Lag} views=${views} />
    </div>
    <div class="columns">
      <section class="card" aria-labelledby="pace"><h2 id="pace">Commands</h2><${Pace} slices=${bank.data?.commands} /></section>
      <section class="card" aria-labelledby="held"><h2 id="held">Money held</h2><${Held} money=${bank.data?.money} /></section>
    </div>
    <${Feed} />`;
}

function Figure({ word, value = '…', note }) {
  return html`<div class="tile"><p class="word">${word}</p><p class="value">${value}</p>${note && html`<p class="faint">${note}</p>`}</div>`;
}

function Head({ log }) {
  if (log.data?.forbidden) return html`<${Figure} word="Events in the log" value="–" note=${log.data.forbidden.message} />`;
  const total = log.data?.data.reduce((sum, head) => sum + Number(head.position), 0);
  return html`<${Figure} word="Events in the log" value=${total !== undefined ? number(total) : '…'} />`;
}

function Lag({ views }) {
  if (views.data?.forbidden) return html`<${Figure} word="Views behind the log" value="–" note=${views.data.forbidden.message} />`;
  const live = views.data?.data.filter((view) => view.state === 'live' || view.state === 'stopped') ?? [];
  const stopped = live.find((view) => view.state === 'stopped');
  if (!views.data) return html`<${Figure} word="Views behind the log" />`;
  const events = Math.max(0, ...live.map((view) => view.lag_events));
  const seconds = Math.max(0, ...live.map((view) => view.lag_seconds));
  const note = stopped ? `The view ${stopped.name} stands still.` : events === 0 ? 'Up to date' : `for ${seconds.toFixed(1)} s`;
  return html`<${Figure} word="Views behind the log" value=${`${number(events)} event${events === 1 ? '' : 's'}`} note=${note} />`;
}

function Held({ money }) {
  const rows = Object.entries(money ?? {});
  if (money && rows.length === 0) return html`<p class="faint">No account has been opened yet. <a href="#/accounts?open=yes">Open the first one</a>.</p>`;
  return html`<table>
    <caption class="unseen">What all accounts of a currency hold</caption>
    <thead><tr><th scope="col">Currency</th><th scope="col" class="end">Held by all accounts</th></tr></thead>
    <tbody>${rows.map(([code, minor]) => html`<tr key=${code}>
      <th scope="row"><a href=${`#/accounts?currency=${code}`}>${code}</a></th><td class="end"><${Money} minor=${minor} currency=${code} /></td>
    </tr>`)}</tbody>
  </table>`;
}

/** Commands per second, and how long they take. */
function Pace({ slices }) {
  const data = useMemo(() => slices && [
    slices.map((slice) => Date.parse(slice.from) / 1000),
    slices.map((slice) => slice.per_second),
    slices.map((slice) => slice.p50_ms),
    slices.map((slice) => slice.p99_ms),
  ], [slices]);
  if (!slices) return html`<div class="chart"></div>`;
  const now = slices.at(-2) ?? slices.at(-1);
  const figures = now.p50_ms === null ? 'none in the last ten seconds' :
    `${number(now.per_second)} a second; half take at most ${now.p50_ms.toFixed(1)} ms, 99 of 100 at most ${now.p99_ms.toFixed(1)} ms`;
  const options = () => ({
    scales: { x: {}, y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] }, ms: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
    axes: [{}, { size: 60 }, { scale: 'ms', side: 1, size: 60, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => `${tick} ms`) }],
    series: [
      { label: 'Time' },
      { label: 'Commands a second', stroke: colour('accent'), fill: colour('accent-soft'), width: 2 },
      { label: 'Half took at most (ms)', scale: 'ms', stroke: colour('ink'), width: 1.5, points: { show: true, size: 4, fill: colour('ink') } },
      { label: '99 of 100 (ms)', scale: 'ms', stroke: colour('warn'), width: 1.5, dash: [4, 3], points: { show: true, size: 4, fill: colour('warn') } },
    ],
  });
  return html`<p class="faint">The last ten minutes at this instance: ${figures}.</p>
    <${Chart} label=${`Commands over the last ten minutes: ${figures}`} options=${options} data=${data} />`;
}

// ---- The feed

const STATES = { connecting: 'Connecting…', live: 'Live', waiting: 'Connection lost; trying again…' };

/** Keeps the newest events as they come, without taking apart what nobody will see. */
function useFeed() {
  const [state, setState] = useState({ state: 'connecting', error: null });
  const [rows, setRows] = useState([]);
  const [count, setCount] = useState(0);
  const [isPaused, setPaused] = useState(false);
  const paused = useRef(false);
  paused.current = isPaused;
  const newest = useRef([]);
  const told = useRef(0);
  useEffect(() => {
    const control = new AbortController();
    let begin;
    const open = async (lastId, signal) => {
      begin ??= url('/v1/events/stream', await beginning(signal));
      const response = await request(begin, { signal, headers: lastId ? { 'Last-Event-ID': lastId } : {} });
      if (response.ok) return response;
      const refusal = await refusalOf(response);
      // The log has another history now, as after a restore: begin anew.
      if (response.status === 400) {
        begin = undefined;
        setRows([]);
      }
      if (response.status === 403) control.abort();
      if (response.status === 403) setState({ state: 'forbidden', error: refusal });
      throw refusal;
    };
    follow(open, ({ data }) => {
      told.current++;
      newest.current.push(data);
      if (newest.current.length > 2 * FEED_ROWS) newest.current.splice(0, FEED_ROWS);
    }, (state, error) => setState({ state, error }), control.signal);
    const timer = setInterval(() => {
      if (paused.current || newest.current.length === 0) return;
      const fresh = newest.current.splice(0).slice(-FEED_ROWS).map((text) => JSON.parse(text)).reverse();
      setCount(told.current);
      setRows((before) => [...fresh, ...before].slice(0, FEED_ROWS));
    }, FEED_STEP_MS);
    return () => (control.abort(), clearInterval(timer));
  }, []);
  return { ...state, rows, count, isPaused, setPaused };
}

/** Where the feed begins: a little before the log's end, in each partition. */
async function beginning(signal) {
  const { data } = await read('/v1/log/head', {}, { signal, fresh: false });
  const before = Math.ceil(FEED_BEFORE / data.length);
  const places = data.map(({ partition, position }) => ({ partition, place: Math.max(0, position - before) }));
  return { after: places.length > 1 ? places.map(({ partition, place }) => `${partition}:${place}`).join(',') : places[0].place };
}

function Feed() {
  const feed = useFeed();
  const currencyOf = useAccountCurrencies(feed.rows);
  const state = feed.isPaused ? 'Paused' : (STATES[feed.state] ?? '');
  if (feed.state === 'forbidden') return html`<section class="card" aria-labelledby="feed"><h2 id="feed">Events</h2><${Failure} error=${feed.error} /></section>`;
  return html`<section class="card" aria-labelledby="feed">
    <div class="heading"><h2 id="feed">Events as they happen</h2>
      <p class=${`state ${feed.isPaused ? 'paused' : feed.state}`} role="status">${state}</p>
      <button type="button" class="quiet" aria-pressed=${feed.isPaused} onClick=${() => feed.setPaused(!feed.isPaused)}>${feed.isPaused ? 'Go on' : 'Pause'}</button>
    </div>
    <div class="wide" tabindex="0" role="group" aria-label="Events, newest first">
    <table>
      <caption class="unseen">The newest events of all accounts</caption>
      <thead><tr><th scope="col">Time</th><th scope="col">Event</th><th scope="col" class="end">Amount</th><th scope="col">Account</th><th scope="col">By</th><th scope="col" class="end">Position</th></tr></thead>
      <tbody>${feed.rows.map((event) => html`<${FeedRow} key=${event.id} event=${event} currency=${currencyOf(event)} />`)}</tbody>
    </table></div>
    ${feed.rows.length === 0 && html`<p class="faint">Nothing has happened yet.</p>`}
  </section>`;
}

function FeedRow({ event, currency }) {
  const money = moved(event);
  return html`<tr>
    <td><${Time} at=${event.recorded_at} clock /></td><td>${word(event.type)}</td>
    <td class="end">${money && html`<${Money} ...${money} currency=${currency} />`}</td><td><${AccountLink} id=${event.aggregate_id} /></td><td class="by">${event.metadata.user_id}</td><td class="end">${event.position}</td>
  </tr>`;
}

/** How many accounts are looked up at once: a busy feed must not make a busy bank. */
const LOOK_UPS_MAX = 2;
/** What could not be looked up is tried again after so long. */
const LOOK_AGAIN_MS = 5_000;
const currencyById = new Map();

/** Events say how much, and their accounts in which currency. */
function useAccountCurrencies(rows) {
  const [, turn] = useState(0);
  const running = useRef(0);
  const isGone = useRef(false);
  useEffect(() => () => void (isGone.current = true), []);
  const look = () => {
    const unknown = rows.find((event) => !currencyById.has(event.aggregate_id) && moved(event));
    if (!unknown || running.current >= LOOK_UPS_MAX || isGone.current) return;
    const id = unknown.aggregate_id;
    currencyById.set(id, null);
    running.current++;
    read(`/v1/accounts/${id}`)
      .then((account) => currencyById.set(id, account.currency), () => void setTimeout(() => currencyById.delete(id), LOOK_AGAIN_MS))
      .finally(() => (running.current--, isGone.current || turn((n) => n + 1)));
  };
  useEffect(() => {
    for (const { type, aggregate_id, data } of rows) if (type === 'AccountOpened') currencyById.set(aggregate_id, data.currency);
    for (let n = 0; n < LOOK_UPS_MAX; n++) look();
  });
  return ({ aggregate_id }) => currencyById.get(aggregate_id);
}
