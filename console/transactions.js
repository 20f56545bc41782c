// The tab with the transactions of an account: filters, the list, and its export as CSV.

import { AccountLink, ListFooter, Money, Time, formatNumber, html, useEffect, usePages, useRef } from './components.js';
import { read } from './api.js';
import { ExportButton, moneyCell, timeCell } from './export.js';
import { dayStart, exclusiveEnd, nextDay } from './datetime.js';
import { TRANSACTION_LABELS, isDebit, transactionLabel } from './labels.js';
import { readMoney } from './money.js';
import { accountAddress, navigate } from './route.js';

export const PAGE_ROWS = 25;
/** The filters, by their names in the address of the page. */
const FILTERS = ['kind', 'from', 'to', 'reference', 'min', 'max'];

/** An amount of a filter in minor units; text that is no amount is no filter. */
const minorOf = (text, currency) => (text && currency ? readMoney(text, currency, true).minor : undefined);

/** Refreshes a list of the current state when the account has a new version. */
export function useRefresh(list, account, isHistorical) {
  const refreshedVersion = useRef(account.version);
  useEffect(() => {
    const before = refreshedVersion.current;
    refreshedVersion.current = account.version;
    // After a failure, the next poll of the account refreshes the list again.
    if (!isHistorical && account.version > before) list.refresh((row) => row.version).catch(() => (refreshedVersion.current = Math.min(refreshedVersion.current, before)));
  }, [account, isHistorical]);
}

export function Transactions({ account, query, currency, isHistorical }) {
  const { account_id: id, version } = account;
  const end = isHistorical ? exclusiveEnd(account.last_activity_at) : undefined;
  const until = query.to && nextDay(query.to);
  const filters = {
    kind: query.kind,
    from: query.from && dayStart(query.from),
    to: end && until ? (end < until ? end : until) : (end ?? until),
    reference: query.reference,
    min_amount: minorOf(query.min, currency),
    max_amount: minorOf(query.max, currency),
  };
  const loadPage = (after, limit, signal) => read(`/v1/accounts/${id}/transactions`, { ...filters, after, limit }, { signal });
  const list = usePages((after, signal) => loadPage(after, PAGE_ROWS, signal), [id, ...Object.values(filters)]);
  useRefresh(list, account, isHistorical);
  // A later version can have the same timestamp.
  const rows = isHistorical ? list.rows.filter((row) => row.version <= version) : list.rows;
  const isFiltered = FILTERS.some((name) => query[name]);
  return html`<section aria-labelledby="transactions"><h2 id="transactions" class="visually-hidden">Transactions</h2>
    <${Filters} account=${account} query=${query} />
    <div class="heading"><p class="muted">${isFiltered ? 'Matching transactions, newest first' : `${formatNumber(account.transaction_count)} transactions, newest first`}</p>
      <${ExportButton} loadPage=${loadPage} columns=${columns(currency)} name=${`transactions-${id}`} /></div>
    <div class=${`table-scroll${list.isOutdated ? ' stale' : ''}`} tabindex="0" role="group" aria-label="Transactions">
    <table>
      <caption class="visually-hidden">Transactions, newest first</caption>
      <thead><tr><th scope="col">Time</th><th scope="col">Type</th><th scope="col" class="end">Amount</th><th scope="col" class="end">Balance after</th><th scope="col">Reference</th></tr></thead>
      <tbody>${rows.map((row) => html`<${TransactionRow} key=${row.version} row=${row} account=${account} query=${query} />`)}</tbody>
    </table></div>
    ${!list.isLoading && !list.error && !list.next && rows.length === 0 && html`<p class="muted">${isFiltered ? 'No transactions match.' : 'No transactions.'}</p>`}
    <${ListFooter} list=${list} itemsLabel="transactions" />
  </section>`;
}

/** The columns of an export of transactions. */
const columns = (currency) => [
  ['Time (UTC)', (row) => timeCell(row.recorded_at)], ['Type', (row) => transactionLabel(row.kind)],
  ['Amount', (row) => moneyCell(isDebit(row.kind) ? -row.amount : row.amount, currency)], ['Balance after', (row) => moneyCell(row.balance_after, currency)],
  ['Currency', () => currency?.code], ['Reference', (row) => row.reference], ['Counterparty', (row) => row.counterparty_account_id],
  ['Transfer', (row) => row.transfer_id], ['Version', (row) => row.version], ['Event', (row) => row.event_id],
];

function TransactionRow({ row, account, query }) {
  const details = accountAddress(account.account_id, { ...query, transaction: row.version, on: row.recorded_at });
  return html`<tr>
    <td><a class="row-link" href=${details}><${Time} at=${row.recorded_at} /><span class="visually-hidden">, details of transaction ${row.version}</span></a></td>
    <td>${transactionLabel(row.kind)}${row.counterparty_account_id && html` ${isDebit(row.kind) ? 'to' : 'from'} <${AccountLink} id=${row.counterparty_account_id} />`}${row.reversed > 0 && html` <span class="chip warn">${row.reversed === row.amount ? 'reversed' : 'partly reversed'}</span>`}</td>
    <td class=${`end ${isDebit(row.kind) ? 'debit' : 'credit'}`}><${Money} minor=${row.amount} currency=${account.currency} sign=${isDebit(row.kind) ? '−' : '+'} /></td>
    <td class="end"><${Money} minor=${row.balance_after} currency=${account.currency} /></td>
    <td class="text">${row.reference}</td>
  </tr>`;
}

function Filters({ account, query }) {
  const form = useRef(null);
  const apply = () => {
    const entered = Object.fromEntries(FILTERS.map((name) => [name, form.current.elements[name].value.trim()]));
    navigate(accountAddress(account.account_id, { ...query, ...entered }), true);
  };
  const isFiltered = FILTERS.some((name) => query[name]);
  return html`<form ref=${form} class="filters" onSubmit=${(event) => (event.preventDefault(), apply())} aria-label="Filter transactions">
    <label>Type <select name="kind" value=${query.kind ?? ''} onChange=${apply}><option value="">Any</option>${Object.entries(TRANSACTION_LABELS).map(([kind, label]) => html`<option value=${kind} selected=${query.kind === kind}>${label}</option>`)}</select></label>
    <label>From <input type="date" name="from" value=${query.from ?? ''} onChange=${apply} /></label>
    <label>To <input type="date" name="to" value=${query.to ?? ''} onChange=${apply} /></label>
    <label>Reference <input name="reference" value=${query.reference ?? ''} onChange=${apply} autocomplete="off" /></label>
    <label>Amount from <input name="min" value=${query.min ?? ''} inputmode="decimal" size="8" onChange=${apply} autocomplete="off" /></label>
    <label>to <input name="max" value=${query.max ?? ''} inputmode="decimal" size="8" onChange=${apply} autocomplete="off" /></label>
    ${isFiltered && html`<a href=${accountAddress(account.account_id, { version: query.version, at: query.at })}>Clear filters</a>`}
  </form>`;
}
