// The balance over time, with deposits and withdrawals on it. However long the account's life, a bounded number of rows is
// read: every movement of a short one; of a long one its days, or its newest movements.

import { Failure, html, number, timeText, useLoad, useMemo, useState } from './parts.js';
import { read } from './api.js';
import { Chart, colour } from './chart.js';
import { behind } from './moment.js';
import { formatMoney } from './money.js';
import { isOut } from './words.js';

const POINTS = 1000;
const DAY_MS = 86_400_000;
/** How much of the chart shows that nothing has moved since. */
const REST = 0.15;
/** Of a chart with one moment in it. */
const REST_MS_MIN = 1_000;
/** Steps of the axis in minor units: whole ones alone. */
const STEPS = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

/** @param {{account: object, currency?: object, isPast: boolean}} props */
export function Balance({ account, currency, isPast }) {
  const isLong = account.transaction_count > POINTS;
  const [way, setWay] = useState('days');
  const isByDay = isLong && way === 'days';
  const { account_id: id, version, last_activity_at: at } = account;
  const points = useLoad((signal) => (isByDay ? days(account, isPast, signal) : movements(account, isPast, signal)), [id, version, isByDay, isPast]);
  // What is told of the account's end is as old as the points: they come one behind the other.
  const chart = useMemo(() => points.data && columns(points.data, isPast ? Date.parse(at) : Date.now()), [points.data]);
  if (!points.data || !currency) return html`<${Failure} error=${points.error} retry=${points.reload} /><div class="chart"></div>`;
  return html`<${Failure} error=${points.error} retry=${points.reload} />
    ${isLong && html`<fieldset class="choice bare"><legend class="unseen">What the chart shows</legend>
      ${choice('days', `By day`, way, setWay)} ${choice('movements', `The newest ${number(POINTS)} movements`, way, setWay)}
    </fieldset>`}
    <${Chart} shape=${`${currency.code} ${isByDay}`} label=${summary(points.data, currency)} options=${(uPlot) => options(uPlot, currency, isByDay)} data=${chart} />`;
}

const choice = (value, word, way, setWay) => html`<label><input type="radio" name="chart" value=${value} checked=${way === value} onChange=${() => setWay(value)} /> ${word}</label>`;

/** The newest movements, oldest first: `{time, balance, moved}` in milliseconds and minor units. */
async function movements({ account_id: id, version, opened_at, last_activity_at: at }, isPast, signal) {
  const to = isPast ? behind(at) : undefined;
  const { data, next } = await read(`/v1/accounts/${id}/transactions`, { to, limit: POINTS }, { signal });
  const until = data.filter((row) => row.version <= version).reverse();
  const points = until.map((row) => ({ time: Date.parse(row.recorded_at), balance: row.balance_after, moved: isOut(row.kind) ? -row.amount : row.amount }));
  return next === null ? [{ time: Date.parse(opened_at), balance: 0, moved: 0 }, ...points] : points;
}

/** The days on which money moved, of the last years. */
async function days({ account_id: id, balance, last_activity_at: at }, isPast, signal) {
  const last = Date.parse(at.slice(0, 10));
  const date = (time) => new Date(time).toISOString().slice(0, 10);
  const query = { from: date(last - (POINTS - 1) * DAY_MS), to: date(last + DAY_MS), limit: POINTS };
  const { data } = await read(`/v1/accounts/${id}/daily-balances`, query, { signal });
  const points = data.map((day) => ({ time: Date.parse(day.date) + DAY_MS, balance: day.closing, moved: day.closing - day.opening }));
  // That day went on, but not yet.
  if (isPast && points.length > 0) points.at(-1).balance = balance;
  const first = data[0];
  return first ? [{ time: Date.parse(first.date), balance: first.opening, moved: 0 }, ...points] : points;
}

/** The columns of the chart: time in seconds, balance, and the balance again where money came in or went out. */
function columns(points, end) {
  const last = points.at(-1);
  // A balance that has not moved for long must not push what has moved to the edge.
  const until = last && Math.min(end, last.time + ((last.time - points[0].time) * REST || REST_MS_MIN));
  const all = last && until > last.time ? [...points, { time: until, balance: last.balance, moved: 0 }] : points;
  return [
    all.map(({ time }) => time / 1000),
    all.map(({ balance }) => balance),
    all.map(({ balance, moved }) => (moved > 0 ? balance : null)),
    all.map(({ balance, moved }) => (moved < 0 ? balance : null)),
  ];
}

function options(uPlot, currency, isByDay) {
  const money = (_, value) => (value === null || value === undefined ? '–' : formatMoney(Math.round(value), currency));
  const mark = (name) => ({ width: 0, stroke: colour(name), paths: () => null, points: { show: true, size: 8, fill: colour(name), stroke: colour('card') }, value: money });
  return {
    // Nothing lies below zero.
    scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
    axes: [{}, { size: 96, incrs: STEPS, values: (_, ticks) => ticks.map((tick) => formatMoney(tick, currency)) }],
    series: [
      { label: 'Time', value: (_, value) => (value ? timeText(value * 1000) : '–') },
      // A balance stays until the next movement.
      { label: 'Balance', stroke: colour('accent'), fill: colour('accent-soft'), width: 2, value: money, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) },
      { label: isByDay ? 'Day with more in' : 'Money in', ...mark('good') },
      { label: isByDay ? 'Day with more out' : 'Money out', ...mark('bad') },
    ],
  };
}

function summary(points, currency) {
  if (points.length === 0) return 'No money has moved.';
  const balances = points.map(({ balance }) => balance);
  const money = (minor) => formatMoney(minor, currency);
  const [lowest, highest] = balances.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [balances[0], balances[0]]);
  return `Balance from ${timeText(points[0].time)} on: ${money(balances[0])} at first, ${money(balances.at(-1))} in the end, at least ${money(lowest)}, at most ${money(highest)}.`;
}
