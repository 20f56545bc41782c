// The statement of an account: totals of a period on the page, and the full statement as a download.

import { ErrorNotice, Field, Money, html, inputProps, useState } from './components.js';
import { get, read } from './api.js';

const DAY_MS = 86_400_000;
const DAYS_MAX = 1000;

const isoDate = (time) => new Date(time).toISOString().slice(0, 10);
const dayAfter = (date) => isoDate(Date.parse(date) + DAY_MS);

export function StatementForm({ account }) {
  const today = isoDate(Date.now());
  const [from, setFrom] = useState(`${today.slice(0, 8)}01`);
  const [to, setTo] = useState(today);
  const [totals, setTotals] = useState(null);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const path = `/v1/accounts/${account.account_id}`;

  /** An event handler that validates the form, runs `work` and shows its error. */
  const handler = (work) => async (event) => {
    event.preventDefault();
    if (!event.target.closest('form').reportValidity()) return;
    setBusy(true);
    setError(null);
    setTotals(null);
    await work().catch(setError);
    setBusy(false);
  };
  const showTotals = handler(async () => {
    const { data, next } = await read(`${path}/daily-balances`, { from, to: dayAfter(to), limit: DAYS_MAX });
    setTotals({ days: data, isComplete: next === null, from, to });
  });
  // Totals are hidden when a date changes, because they would no longer match the dates above them.
  const setDate = (set) => (event) => (setTotals(null), set(event.target.value));
  const download = (type, extension) => handler(async () => {
    const response = await get(`${path}/statement`, { from, to: dayAfter(to) }, { headers: { Accept: type } });
    saveFile(await response.blob(), `statement-${account.account_id}-${from}-${to}.${extension}`);
  });

  return html`<form onSubmit=${showTotals} aria-busy=${isBusy}>
    <fieldset class="plain" disabled=${isBusy}>
      <div class="row">
        <${Field} id="statement-from" label="From"><input ...${inputProps('statement-from')} type="date" required value=${from} onInput=${setDate(setFrom)} /></${Field}>
        <${Field} id="statement-to" label="To (inclusive)"><input ...${inputProps('statement-to')} type="date" required value=${to} onInput=${setDate(setTo)} /></${Field}>
      </div>
      <p class="hint">Days in UTC</p>
      <div class="buttons">
        <button>Show totals</button>
        <button type="button" class="secondary" onClick=${download('text/csv', 'csv')}>Download CSV</button>
        <button type="button" class="secondary" onClick=${download('application/json', 'json')}>Download JSON</button>
      </div>
    </fieldset>
    <${ErrorNotice} error=${error} />
    <div role="status">${totals && html`<${Totals} ...${totals} currency=${account.currency} />`}</div>
  </form>`;
}

function Totals({ days, isComplete, from, to, currency }) {
  if (!isComplete) return html`<p class="muted">The period has more than ${DAYS_MAX} days with transactions. Download the statement instead.</p>`;
  if (days.length === 0) return html`<p class="muted">No transactions from ${from} to ${to}.</p>`;
  const sum = (name) => days.reduce((sum, day) => sum + BigInt(day[name]), 0n);
  const row = (label, minor) => html`<tr><th scope="row">${label}</th><td class="end"><${Money} minor=${minor} currency=${currency} /></td></tr>`;
  return html`<table class="totals"><caption>From ${from} to ${to}</caption><tbody>
    ${row('Opening balance', days[0].opening)}${row('Money in', sum('in'))}${row('Money out', sum('out'))}${row('Closing balance', days.at(-1).closing)}
    <tr><th scope="row">Transactions</th><td class="end">${sum('count').toString()}</td></tr>
  </tbody></table>`;
}

/** Starts the browser's download of a file. */
function saveFile(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement('a'), { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
