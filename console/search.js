// The search field of the page frame, and the page with its results: accounts, transactions and transfers.

import { AccountLink, ErrorNotice, Money, OwnerLink, Status, Time, html, useCurrencies, useEffect, useLoad, useRef } from './components.js';
import { read } from './api.js';
import { readAll } from './export.js';
import { isDebit, transactionLabel } from './labels.js';
import { permissions } from './permissions.js';
import { accountAddress, navigate, setTitle } from './route.js';
import { readQuery } from './search_query.js';

const ROWS = 20;
/** An amount without a currency is searched for in this many currencies of the bank at most. */
const CURRENCIES_MAX = 8;

export function SearchField({ query }) {
  const input = useRef(null);
  useEffect(() => void (input.current.value = query ?? ''), [query]);
  const submit = (event) => {
    event.preventDefault();
    const text = input.current.value.trim();
    if (text) navigate(`#/search?${new URLSearchParams({ q: text })}`);
  };
  return html`<form class="find" role="search" aria-label="Everything" onSubmit=${submit}>
    <input ref=${input} name="q" type="search" aria-label="Find an account, owner, reference, transfer or amount" placeholder="ID, owner, reference, amount" autocomplete="off" spellcheck="false" />
    <button class="secondary">Find</button>
  </form>`;
}

export function Search({ text }) {
  const currencies = useCurrencies();
  useEffect(() => setTitle(`Search: ${text}`), [text]);
  const found = currencies && readQuery(text, currencies);
  return html`<h1 tabindex="-1">Search: <span class="break">${text}</span></h1>
    ${found && html`<${Accounts} key=${`accounts ${text}`} query=${found} />
      ${found.id && html`<${TransferResult} key=${`transfer ${text}`} id=${found.id} />`}
      <${Transactions} key=${`transactions ${text}`} title="Transactions with this reference" filters=${{ reference: text }} />
      ${found.amounts.length > 0 && html`<${Amounts} key=${`amounts ${text}`} amounts=${found.amounts} isExact=${found.hasCurrency} />`}`}`;
}

function Accounts({ query: { text, id, canBePart } }) {
  const accounts = useLoad((signal) => (canBePart ? readSome('/v1/accounts', { q: text }, signal) : Promise.resolve({ rows: [], isComplete: true })), [text]);
  const exact = useLoad((signal) => (id ? read(`/v1/accounts/${id}`, {}, { signal }).catch(orNothing) : Promise.resolve(null)), [id]);
  const rows = [exact.data, ...(accounts.data?.rows ?? [])].filter(Boolean);
  const shown = rows.filter((row, n) => rows.findIndex(({ account_id }) => account_id === row.account_id) === n);
  return html`<section class="card" aria-labelledby="found-accounts"><h2 id="found-accounts">Accounts</h2>
    <${ErrorNotice} error=${accounts.error ?? exact.error} retry=${accounts.reload} />
    ${shown.length > 0 && html`<div class="table-scroll" tabindex="0" role="group" aria-label="Accounts"><table><caption class="visually-hidden">Accounts that match</caption>
      <thead><tr><th scope="col">Account</th><th scope="col">Owner</th><th scope="col" class="end">Balance</th><th scope="col">Status</th></tr></thead>
      <tbody>${shown.map((row) => html`<tr key=${row.account_id}><th scope="row"><${AccountLink} id=${row.account_id} /></th><td class="name"><${OwnerLink} owner=${row.owner} /></td>
        <td class="end"><${Money} minor=${row.balance} currency=${row.currency} /></td><td><${Status} status=${row.status} /></td></tr>`)}</tbody></table></div>`}
    ${accounts.data && !accounts.data.isComplete && html`<p><a href=${`#/accounts?${new URLSearchParams({ q: text })}`}>All accounts that match</a></p>`}
    ${!accounts.isLoading && !accounts.error && shown.length === 0 && html`<p class="muted">No accounts match.</p>`}
  </section>`;
}

/** The first rows of a list. A page with filters can be short or empty although others follow. */
async function readSome(path, filters, signal) {
  const { rows, isComplete } = await readAll((after) => read(path, { ...filters, after, limit: ROWS }, { signal }), ROWS);
  return { rows: rows.slice(0, ROWS), isComplete: isComplete && rows.length <= ROWS };
}

/** What is not found is no failure of the page. */
const orNothing = (error) => (error.status === 404 ? null : Promise.reject(error));

function TransferResult({ id }) {
  const transfer = useLoad((signal) => read(`/v1/transfers/${id}`, {}, { signal }).catch(orNothing), [id]);
  if (!transfer.data && !transfer.error) return null;
  const found = transfer.data;
  return html`<section class="card" aria-labelledby="found-transfer"><h2 id="found-transfer">Transfer</h2><${ErrorNotice} error=${transfer.error} retry=${transfer.reload} />
    ${found && html`<p><${Money} minor=${found.amount} currency=${found.currency} /> from <${AccountLink} id=${found.from} /> to <${AccountLink} id=${found.to} />, <${Time} at=${found.recorded_at} />${found.reference && html`, ${found.reference}`}</p>`}
  </section>`;
}

/** Amounts are searched for in one currency, or in those that the bank holds. */
function Amounts({ amounts, isExact }) {
  const bank = useLoad((signal) => (isExact || !permissions.readAny() ? Promise.resolve(null) : read('/v1/overview', {}, { signal })), []);
  const held = bank.data && Object.keys(bank.data.money);
  const shown = amounts.filter(({ currency }) => isExact || (held ?? []).includes(currency)).slice(0, CURRENCIES_MAX);
  if (!isExact && bank.data === null) return html`<section class="card"><p class="muted">To find an amount, add its currency, for example 12.50 EUR.</p></section>`;
  return shown.map(({ currency, minor }) => html`<${Transactions} key=${currency} title=${html`Transactions of <${Money} minor=${minor} currency=${currency} />`}
    filters=${{ currency, min_amount: minor, max_amount: minor }}  isQuiet=${!isExact} />`);
}

function Transactions({ title, filters, isQuiet }) {
  const found = useLoad((signal) => readSome('/v1/transactions', filters, signal), []);
  const rows = found.data?.rows ?? [];
  if (isQuiet && rows.length === 0 && !found.error) return null;
  const name = `found-${Object.values(filters).join('-').replace(/\W+/g, '-')}`;
  return html`<section class="card" aria-labelledby=${name}><h2 id=${name}>${title}</h2>
    <${ErrorNotice} error=${found.error} retry=${found.reload} />
    ${rows.length > 0 && html`<div class="table-scroll" tabindex="0" role="group" aria-labelledby=${name}><table><caption class="visually-hidden">Transactions that match, newest first</caption>
      <thead><tr><th scope="col">Time</th><th scope="col">Type</th><th scope="col" class="end">Amount</th><th scope="col">Account</th><th scope="col">Reference</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.event_id}>
        <td><a class="row-link" href=${accountAddress(row.account_id, { transaction: row.version, on: row.recorded_at })}><${Time} at=${row.recorded_at} /></a></td>
        <td>${transactionLabel(row.kind)}</td>
        <td class=${`end ${isDebit(row.kind) ? 'debit' : 'credit'}`}><${Amount} row=${row} currency=${filters.currency} /></td>
        <td><${AccountLink} id=${row.account_id} /></td><td class="text">${row.reference}</td></tr>`)}</tbody></table></div>`}
    ${found.data && !found.data.isComplete && html`<p class="muted">Only the newest ${ROWS} are shown.</p>`}
    ${!found.isLoading && !found.error && rows.length === 0 && html`<p class="muted">No transactions match.</p>`}
  </section>`;
}

const accountsById = new Map();

/** The currency of an account, asked for once. */
function useCurrencyOf(id, known) {
  const account = useLoad(() => {
    if (known) return Promise.resolve({ currency: known });
    if (!accountsById.has(id)) accountsById.set(id, read(`/v1/accounts/${id}`).catch((error) => (accountsById.delete(id), Promise.reject(error))));
    return accountsById.get(id);
  }, [id, known]);
  return account.data?.currency;
}

/** The rows of a search have no currency: the account has it. */
function Amount({ row, currency }) {
  const shown = useCurrencyOf(row.account_id, currency);
  return html`<${Money} minor=${row.amount} currency=${shown} sign=${isDebit(row.kind) ? '−' : '+'} />`;
}
