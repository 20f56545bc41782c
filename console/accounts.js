// The account list: search, filters, and the form that opens an account.

import { AccountLink, Field, ListFooter, Money, OwnerLink, Status, Time, html, inputProps, useCurrencies, useEffect, usePages, useRef, useState } from './components.js';
import { read } from './api.js';
import { ExportButton, moneyCell, timeCell } from './export.js';
import { AmountField, Form, useForm } from './form.js';
import { permissions } from './permissions.js';
import { ACCOUNT_ID, navigate } from './route.js';

const PAGE_ROWS = 100;

export function Accounts({ query }) {
  const { owner, status, currency } = query;
  const currencies = useCurrencies();
  const loadPage = (after, limit, signal) => read('/v1/accounts', { owner, status, currency, after, limit }, { signal });
  const list = usePages((after, signal) => loadPage(after, PAGE_ROWS, signal), [owner, status, currency]);
  return html`<h1 tabindex="-1">${permissions.readAny() ? 'Accounts' : 'My accounts'}</h1>
    <${SearchForm} query=${query} />
    ${permissions.open() && html`<details class="card" open=${query.open === 'yes'}><summary>Open an account</summary><${OpenAccountForm} /></details>`}
    <section class="card" aria-labelledby="list">
      <div class="heading"><h2 id="list">${owner ? html`Accounts of <span class="id">${owner}</span>` : 'Newest accounts first'}</h2>
        <${ExportButton} loadPage=${loadPage} columns=${accountColumns(currencies)} name="accounts" /></div>
      <${AccountTable} list=${list} />
    </section>`;
}

/** The columns of an export of accounts. */
export const accountColumns = (currencies) => [
  ['Account', (row) => row.account_id], ['Owner', (row) => row.owner], ['Currency', (row) => row.currency],
  ...['balance', 'available', 'held', 'overdraft'].map((name) => [name[0].toUpperCase() + name.slice(1), (row) => moneyCell(row[name], currencies?.get(row.currency))]),
  ['Status', (row) => row.status], ['Opened (UTC)', (row) => timeCell(row.opened_at)], ['Last activity (UTC)', (row) => timeCell(row.last_activity_at)],
];

export function AccountTable({ list }) {
  return html`<div class=${`table-scroll${list.isOutdated ? ' stale' : ''}`} tabindex="0" role="group" aria-label="Accounts">
      <table class="stacked" role="table">
        <caption class="visually-hidden">Accounts, newest first</caption>
        <thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">Account</th><th scope="col" role="columnheader">Owner</th><th scope="col" role="columnheader" class="end">Balance</th><th scope="col" role="columnheader">Status</th><th scope="col" role="columnheader">Opened</th><th scope="col" role="columnheader">Last activity</th></tr></thead>
        <tbody role="rowgroup">${list.rows.map((account) => html`<${AccountRow} key=${account.account_id} account=${account} />`)}</tbody>
      </table>
    </div>
    ${!list.isLoading && !list.error && !list.next && list.rows.length === 0 && html`<p class="muted">No accounts match.</p>`}
    <${ListFooter} list=${list} itemsLabel="accounts" autoLoad />`;
}

/** On a phone each row is a block of two columns, so the roles of the table are written out. */
function AccountRow({ account }) {
  return html`<tr role="row">
    <th scope="row" role="rowheader"><${AccountLink} id=${account.account_id} /></th>
    <td class="name" role="cell"><${OwnerLink} owner=${account.owner} /></td>
    <td class="end" role="cell"><${Money} minor=${account.balance} currency=${account.currency} /></td>
    <td role="cell"><${Status} status=${account.status} /></td>
    <td role="cell" class="wide"><${Time} at=${account.opened_at} /></td>
    <td role="cell" class="wide"><${Time} at=${account.last_activity_at} /></td>
  </tr>`;
}

/** One search field for account IDs and owners. Text in the form of an ID opens that account, unless it is the owner already searched for. */
function SearchForm({ query }) {
  const list = useCurrencies();
  const form = useRef(null);
  // Restores the fields after back navigation. The currency has its own effect, so that a late currency list does not
  // overwrite text that is being typed.
  useEffect(() => {
    form.current.elements.search.value = query.owner ?? '';
    form.current.elements.status.value = query.status ?? '';
  }, [query.owner, query.status]);
  useEffect(() => void (form.current.elements.currency.value = query.currency ?? ''), [query.currency, list]);
  const submit = (event) => {
    event?.preventDefault();
    const { search, status, currency } = form.current.elements;
    const text = search.value.trim();
    if (ACCOUNT_ID.test(text) && text !== query.owner) return navigate(`#/accounts/${text.toLowerCase()}`);
    const filters = new URLSearchParams(Object.entries({ owner: text, status: status.value, currency: currency.value }).filter(([, value]) => value));
    navigate(`#/accounts${filters.size ? `?${filters}` : ''}`);
  };
  return html`<form class="search card" role="search" ref=${form} onSubmit=${submit}>
    <div class="field grow"><label for="search">Account ID or owner</label>
      <input id="search" name="search" autocomplete="off" spellcheck="false" aria-describedby="search-hint" />
      <p class="hint" id="search-hint">The full account ID, or the exact name of the owner</p></div>
    <div class="field"><label for="status">Status</label>
      <select id="status" name="status" onChange=${submit}><option value="">Any</option><option value="open">Open</option><option value="frozen">Frozen</option><option value="closed">Closed</option></select></div>
    <div class="field"><label for="currency">Currency</label>
      <select id="currency" name="currency" onChange=${submit}><option value="">Any</option>${[...(list?.keys() ?? [])].map((code) => html`<option value=${code}>${code}</option>`)}</select></div>
    <button>Search</button>
  </form>`;
}

function OpenAccountForm() {
  const list = useCurrencies();
  const [code, setCode] = useState('EUR');
  const currency = list?.get(code);
  const form = useForm({
    fieldOf: { invalid_amount: 'initial_deposit', invalid_currency: 'currency' },
    async submit({ owner = '', initial_deposit: deposit }, { readAmount, send }) {
      const minor = deposit.trim() === '' ? 0 : readAmount('initial_deposit', deposit, currency, true);
      const body = { currency: code, ...(owner.trim() && { owner: owner.trim() }), ...(minor > 0 && { initial_deposit: minor }) };
      const receipt = await send({ path: '/v1/accounts', body, label: `Open account in ${code}` });
      navigate(`#/accounts/${receipt.account_id}`);
    },
  });
  return html`<${Form} form=${form} button="Open account">
    <div class="row">
      ${permissions.openForOthers() && html`<${Field} id="open-owner" label="Owner" error=${form.errors.owner} hint="Customer ID without personal data. Leave empty to open the account for yourself.">
        <input ...${inputProps('open-owner', form.errors.owner, true)} name="owner" maxlength="255" autocomplete="off" spellcheck="false" />
      </${Field}>`}
      <${Field} id="open-currency" label="Currency" error=${form.errors.currency} hint="Cannot be changed later">
        <select ...${inputProps('open-currency', form.errors.currency, true)} name="currency" value=${code} onChange=${(event) => setCode(event.target.value)}>
          ${[...(list?.values() ?? [])].filter(({ withdrawn }) => !withdrawn).map(({ code: each, name }) => html`<option value=${each} selected=${each === code}>${each} – ${name}</option>`)}
        </select>
      </${Field}>
      <${AmountField} id="open-deposit" name="initial_deposit" label="Opening deposit" hint="Optional" form=${form} currency=${currency} zero />
    </div>
  </${Form}>`;
}
