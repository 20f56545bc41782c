// The balance of an account over time, with its deposits and withdrawals. The number of points is bounded: a short history shows
// every transaction; a long one shows daily balances or the latest transactions.

import { ErrorNotice, formatNumber, formatTime, html, useLoad, useMemo, useState } from './components.js';
import { read } from './api.js';
import { Chart, themeColor } from './chart.js';
import { exclusiveEnd } from './datetime.js';
import { formatMoney } from './money.js';
import { isDebit } from './labels.js';

const POINTS_MAX = 1000;
const DAY_MS = 86_400_000;
/** Increments of the money axis in minor units: 1, 2 and 5 times the powers of ten. */
const AXIS_INCREMENTS = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

/** @param {{account: object, currency?: object, isHistorical: boolean}} props */
export function BalanceChart({ account, currency, isHistorical }) {
  const isLong = account.transaction_count > POINTS_MAX;
  const [mode, setMode] = useState('days');
  const isByDay = isLong && mode === 'days';
  const { account_id: id, version, last_activity_at: at } = account;
  const points = useLoad((signal) => (isByDay ? dailyPoints(account, isHistorical, signal) : transactionPoints(account, isHistorical, signal)), [id, version, isByDay, isHistorical]);
  // The points and the account load one after the other, so the chart changes only with the points.
  const data = useMemo(() => points.data && toColumns(points.data, isHistorical ? Date.parse(at) : Date.now()), [points.data]);
  if (!points.data || !currency) return html`<${ErrorNotice} error=${points.error} retry=${points.reload} /><div class="chart"></div>`;
  return html`<${ErrorNotice} error=${points.error} retry=${points.reload} />
    ${isLong && html`<fieldset class="choice plain"><legend class="visually-hidden">Chart data</legend>
      ${modeOption('days', 'By day', mode, setMode)} ${modeOption('transactions', `Latest ${formatNumber(POINTS_MAX)} transactions`, mode, setMode)}
    </fieldset>`}
    <${Chart} variant=${`${currency.code} ${isByDay}`} label=${summary(points.data, currency)} options=${(uPlot) => chartOptions(uPlot, currency, isByDay)} data=${data} />`;
}

const modeOption = (value, label, mode, setMode) => html`<label><input type="radio" name="chart" value=${value} checked=${mode === value} onChange=${() => setMode(value)} /> ${label}</label>`;

/** The latest transactions, oldest first, as `{time, balance, change}` in milliseconds and minor units. */
async function transactionPoints({ account_id: id, version, opened_at, last_activity_at: at }, isHistorical, signal) {
  const to = isHistorical ? exclusiveEnd(at) : undefined;
  const { data, next } = await read(`/v1/accounts/${id}/transactions`, { to, limit: POINTS_MAX }, { signal });
  const rows = data.filter((row) => row.version <= version).reverse();
  const points = rows.map((row) => ({ time: Date.parse(row.recorded_at), balance: row.balance_after, change: isDebit(row.kind) ? -row.amount : row.amount }));
  return next === null ? [{ time: Date.parse(opened_at), balance: 0, change: 0 }, ...points] : points;
}

/** The latest days with transactions, oldest first. */
async function dailyPoints({ account_id: id, balance, last_activity_at: at }, isHistorical, signal) {
  const last = Date.parse(at.slice(0, 10));
  const date = (time) => new Date(time).toISOString().slice(0, 10);
  const query = { from: date(last - (POINTS_MAX - 1) * DAY_MS), to: date(last + DAY_MS), limit: POINTS_MAX };
  const { data } = await read(`/v1/accounts/${id}/daily-balances`, query, { signal });
  const points = data.map((day) => ({ time: Date.parse(day.date) + DAY_MS, balance: day.closing, change: day.closing - day.opening }));
  // The last day may contain transactions after the historical version.
  if (isHistorical && points.length > 0) points.at(-1).balance = balance;
  const first = data[0];
  return first ? [{ time: Date.parse(first.date), balance: first.opening, change: 0 }, ...points] : points;
}

/** The uPlot columns: time in seconds, the balance, and the balance again at each increase and at each decrease. */
function toColumns(points, end) {
  const last = points.at(-1);
  const all = last && end > last.time ? [...points, { time: end, balance: last.balance, change: 0 }] : points;
  return [
    all.map(({ time }) => time / 1000),
    all.map(({ balance }) => balance),
    all.map(({ balance, change }) => (change > 0 ? balance : null)),
    all.map(({ balance, change }) => (change < 0 ? balance : null)),
  ];
}

function chartOptions(uPlot, currency, isByDay) {
  const money = (_, value) => (value === null || value === undefined ? '–' : formatMoney(Math.round(value), currency));
  const dots = (color) => ({ width: 0, stroke: themeColor(color), paths: () => null, points: { show: true, size: 8, fill: themeColor(color), stroke: themeColor('card') }, value: money });
  return {
    // A balance is negative while the overdraft is used.
    scales: { y: { range: (_, min, max) => [Math.min(0, min * 1.1), Math.max(1, max * 1.1)] } },
    axes: [{}, { size: 96, incrs: AXIS_INCREMENTS, values: (_, ticks) => ticks.map((tick) => formatMoney(tick, currency)) }],
    series: [
      { label: 'Time', value: (_, value) => (value ? formatTime(value * 1000) : '–') },
      // A stepped line: the balance is constant between transactions.
      { label: 'Balance', stroke: themeColor('accent'), fill: themeColor('accent-soft'), width: 2, value: money, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) },
      { label: isByDay ? 'Net increase' : 'Money in', ...dots('good') },
      { label: isByDay ? 'Net decrease' : 'Money out', ...dots('bad') },
    ],
  };
}

/** A text alternative for screen readers. */
function summary(points, currency) {
  if (points.length === 0) return 'No transactions.';
  const balances = points.map(({ balance }) => balance);
  const money = (minor) => formatMoney(minor, currency);
  const [lowest, highest] = balances.reduce(([low, high], balance) => [Math.min(low, balance), Math.max(high, balance)], [balances[0], balances[0]]);
  return `Balance since ${formatTime(points[0].time)}: first ${money(balances[0])}, last ${money(balances.at(-1))}, lowest ${money(lowest)}, highest ${money(highest)}.`;
}
