// The statement of an account: totals of a period on the page, and the full statement as a file or to be printed.

import { ErrorNotice, Field, Money, html, inputProps, useState } from './components.js';
import { get, read } from './api.js';
import { saveFile } from './csv.js';

const DAY_MS = 86_400_000;
const DAYS_MAX = 1000;
/** How long the address of the printable statement stays valid. */
const PRINT_MS = 600_000;
/** The formats of the API: its name, the name for people, and the end of the file's name. */
export const FORMATS = [
  ['csv', 'CSV for spreadsheets', 'csv'], ['camt053', 'camt.053 (ISO 20022)', 'xml'], ['mt940', 'MT940 (SWIFT)', 'sta'],
  ['ofx', 'OFX', 'ofx'], ['hledger', 'hledger journal', 'journal'], ['html', 'Web page', 'html'], ['json', 'JSON', 'json'],
];

const isoDate = (time) => new Date(time).toISOString().slice(0, 10);
const dayAfter = (date) => isoDate(Date.parse(date) + DAY_MS);

export function StatementForm({ account }) {
  const today = isoDate(Date.now());
  const [from, setFrom] = useState(`${today.slice(0, 8)}01`);
  const [to, setTo] = useState(today);
  const [format, setFormat] = useState('csv');
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
    await work().catch(setError);
    setBusy(false);
  };
  const showTotals = handler(async () => {
    setTotals(null);
    const { data, next } = await read(`${path}/daily-balances`, { from, to: dayAfter(to), limit: DAYS_MAX });
    setTotals({ days: data, isComplete: next === null, from, to });
  });
  // Totals are hidden when a date changes, because they would no longer match the dates above them.
  const setDate = (set) => (event) => (setTotals(null), set(event.target.value));
  const statement = async (format) => (await get(`${path}/statement`, { from, to: dayAfter(to), format })).blob();
  const download = handler(async () => {
    const [, , extension] = FORMATS.find(([name]) => name === format);
    saveFile(await statement(format), `statement-${account.account_id}-${from}-${to}.${extension}`);
  });
  const print = handler(async () => {
    // The tab is opened before the request: a browser blocks one that opens later.
    const tab = open('about:blank');
    const address = URL.createObjectURL(await statement('html').catch((failure) => (tab?.close(), Promise.reject(failure))));
    if (tab) tab.location = address;
    setTimeout(() => URL.revokeObjectURL(address), PRINT_MS);
  });

  return html`<form onSubmit=${showTotals} aria-busy=${isBusy}>
    <fieldset class="plain" disabled=${isBusy}>
      <div class="row">
        <${Field} id="statement-from" label="From"><input ...${inputProps('statement-from')} type="date" required value=${from} onInput=${setDate(setFrom)} /></${Field}>
        <${Field} id="statement-to" label="To (inclusive)"><input ...${inputProps('statement-to')} type="date" required value=${to} onInput=${setDate(setTo)} /></${Field}>
      </div>
      <p class="hint">Days in UTC</p>
      <${Field} id="statement-format" label="Format"><select ...${inputProps('statement-format')} value=${format} onChange=${(event) => setFormat(event.target.value)}>
        ${FORMATS.map(([name, label]) => html`<option value=${name} selected=${name === format}>${label}</option>`)}</select></${Field}>
      <div class="buttons">
        <button>Show totals</button>
        <button type="button" class="secondary" onClick=${download}>Download</button>
        <button type="button" class="secondary" onClick=${print}>Open to print</button>
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
