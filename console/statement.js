// An account's statement: in short on the page, in full as a file.

import { Failure, Field, Money, described, html, useState } from './parts.js';
import { answerTo, read } from './api.js';

const DAY_MS = 86_400_000;
const DAYS = 1000;

const day = (time) => new Date(time).toISOString().slice(0, 10);
const dayAfter = (date) => day(Date.parse(date) + DAY_MS);

export function Statement({ account }) {
  const today = day(Date.now());
  const [from, setFrom] = useState(`${today.slice(0, 8)}01`);
  const [to, setTo] = useState(today);
  const [sum, setSum] = useState(null);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const path = `/v1/accounts/${account.account_id}`;

  const attempt = (work) => async (event) => {
    event.preventDefault();
    if (!event.target.closest('form').reportValidity()) return;
    setBusy(true);
    setError(null);
    setSum(null);
    await work().catch(setError);
    setBusy(false);
  };
  const show = attempt(async () => {
    const { data, next } = await read(`${path}/daily-balances`, { from, to: dayAfter(to), limit: DAYS });
    setSum({ days: data, isWhole: next === null, from, to });
  });
  // Totals of other days than those that stand above them would be taken for theirs.
  const choose = (set) => (event) => (setSum(null), set(event.target.value));
  const download = (type, ending) => attempt(async () => {
    const response = await answerTo(`${path}/statement`, { from, to: dayAfter(to) }, { headers: { Accept: type } });
    save(await response.blob(), `statement-${account.account_id}-${from}-${to}.${ending}`);
  });

  return html`<form onSubmit=${show} aria-busy=${isBusy}>
    <fieldset class="bare" disabled=${isBusy}>
      <div class="row">
        <${Field} id="statement-from" label="From"><input ...${described('statement-from')} type="date" required value=${from} onInput=${choose(setFrom)} /></${Field}>
        <${Field} id="statement-to" label="To and with"><input ...${described('statement-to')} type="date" required value=${to} onInput=${choose(setTo)} /></${Field}>
      </div>
      <p class="hint">Days in UTC</p>
      <div class="buttons">
        <button>Show totals</button>
        <button type="button" class="quiet" onClick=${download('text/csv', 'csv')}>Download CSV</button>
        <button type="button" class="quiet" onClick=${download('application/json', 'json')}>Download JSON</button>
      </div>
    </fieldset>
    <${Failure} error=${error} />
    <div role="status">${sum && html`<${Totals} ...${sum} currency=${account.currency} />`}</div>
  </form>`;
}

function Totals({ days, isWhole, from, to, currency }) {
  if (!isWhole) return html`<p class="faint">These are more than ${DAYS} days with movements: download the statement.</p>`;
  if (days.length === 0) return html`<p class="faint">No money moved from ${from} to ${to}.</p>`;
  const total = (name) => days.reduce((sum, each) => sum + BigInt(each[name]), 0n);
  const row = (word, minor) => html`<tr><th scope="row">${word}</th><td class="end"><${Money} minor=${minor} currency=${currency} /></td></tr>`;
  return html`<table class="totals"><caption>From ${from} to ${to}</caption><tbody>
    ${row('Before', days[0].opening)}${row('In', total('in'))}${row('Out', total('out'))}${row('After', days.at(-1).closing)}
    <tr><th scope="row">Movements</th><td class="end">${total('count').toString()}</td></tr>
  </tbody></table>`;
}

/** Hands a file to whoever reads the page. */
function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement('a'), { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
