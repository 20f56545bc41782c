// The page of one owner: their totals by currency and all their accounts.

import { ErrorNotice, Money, StaleNotice, html, useCurrencies, useEffect, useInterval, useLoad, usePages } from './components.js';
import { read } from './api.js';
import { AccountTable, accountColumns } from './accounts.js';
import { ExportButton, readAll } from './export.js';
import { setTitle } from './route.js';

const PAGE_ROWS = 100;
const REFRESH_MS = 5_000;
/** Totals are sums over this many accounts at most. */
const SUMMED_ACCOUNTS_MAX = 5_000;

export function Owner({ owner }) {
  const currencies = useCurrencies();
  const loadPage = (after, limit, signal) => read('/v1/accounts', { owner, after, limit }, { signal });
  const list = usePages((after, signal) => loadPage(after, PAGE_ROWS, signal), [owner]);
  const totals = useLoad((signal) => readAll((after, limit) => loadPage(after, limit, signal), SUMMED_ACCOUNTS_MAX), [owner]);
  useInterval(REFRESH_MS, () => totals.isLoading || totals.reload());
  useEffect(() => setTitle(owner), [owner]);
  return html`<h1 tabindex="-1" class="break">${owner}</h1>
    ${totals.data ? html`<${StaleNotice} resource=${totals} />` : html`<${ErrorNotice} error=${totals.error} retry=${totals.reload} />`}
    <section class="card" aria-labelledby="totals"><h2 id="totals">Totals by currency</h2>${totals.data && html`<${Totals} ...${totals.data} />`}</section>
    <section class="card" aria-labelledby="list">
      <div class="heading"><h2 id="list">Accounts</h2><${ExportButton} loadPage=${loadPage} columns=${accountColumns(currencies)} name=${`accounts-of-${owner.replace(/[^\w.-]+/g, '_')}`} /></div>
      <${AccountTable} list=${list} />
    </section>`;
}

/** Sums of minor units by currency. They can pass the safe integers. */
export function totalsOf(accounts) {
  const totals = new Map();
  for (const { currency, balance, held, available } of accounts) {
    const sum = totals.get(currency) ?? { count: 0, balance: 0n, held: 0n, available: 0n };
    totals.set(currency, { count: sum.count + 1, balance: sum.balance + BigInt(balance), held: sum.held + BigInt(held), available: sum.available + BigInt(available) });
  }
  return [...totals].sort(([one], [other]) => (one < other ? -1 : 1));
}

function Totals({ rows, isComplete }) {
  if (rows.length === 0) return html`<p class="muted">This owner has no accounts, or you may not see them.</p>`;
  const money = (minor, currency) => html`<td class="end"><${Money} minor=${minor} currency=${currency} /></td>`;
  return html`<div class="table-scroll" tabindex="0" role="group" aria-label="Totals by currency"><table>
      <caption class="visually-hidden">Sums over all accounts of the owner</caption>
      <thead><tr><th scope="col">Currency</th><th scope="col" class="end">Accounts</th><th scope="col" class="end">Balance</th><th scope="col" class="end">On hold</th><th scope="col" class="end">Available</th></tr></thead>
      <tbody>${totalsOf(rows).map(([currency, { count, balance, held, available }]) => html`<tr key=${currency}><th scope="row">${currency}</th><td class="end">${count}</td>
        ${money(balance, currency)}${money(held, currency)}${money(available, currency)}</tr>`)}</tbody>
    </table></div>
    ${!isComplete && html`<p class="muted">Only the newest ${rows.length} accounts are counted.</p>`}`;
}
