// The account list: filters, order, and the form that opens an account.

import { AccountLink, Field, ListFooter, Money, OwnerLink, Status, Time, html, inputProps, useCurrencies, useEffect, usePages, useRef, useState } from './components.js';
import { read } from './api.js';
import { ExportButton, moneyCell, timeCell } from './export.js';
import { readMoney } from './money.js';
import { AmountField, Form, useForm } from './form.js';
import { permissions } from './permissions.js';
import { ACCOUNT_ID, navigate } from './route.js';

const PAGE_ROWS = 100;

export function Accounts({ query }) {
  const currencies = useCurrencies();
  const filters = accountFilters(query, currencies);
  const loadPage = (after, limit, signal) => read('/v1/accounts', { ...filters, after, limit }, { signal });
  // Balances are minor units of a currency, so they wait for the list of currencies.
  const isReady = currencies || !(query.min || query.max);
  const list = usePages((after, signal) => (isReady ? loadPage(after, PAGE_ROWS, signal) : new Promise(() => {})), [JSON.stringify(filters), isReady]);
  return html`<h1 tabindex="-1">${permissions.readAny() ? 'Accounts' : 'My accounts'}</h1>
    <${SearchForm} query=${query} />
    ${permissions.open() && html`<details class="card" open=${query.open === 'yes'}><summary>Open an account</summary><${OpenAccountForm} /></details>`}
    <section class="card" aria-labelledby="list">
      <div class="heading"><h2 id="list">${query.owner ? html`Accounts of <span class="id">${query.owner}</span>` : (ORDERS[query.sort] ?? 'Newest accounts first')}</h2>
        <${ExportButton} loadPage=${loadPage} columns=${accountColumns(currencies)} name="accounts" /></div>
      <${AccountTable} list=${list} />
    </section>`;
}

const ORDERS = { balance: 'Lowest balance first', '-balance': 'Highest balance first', last_activity_at: 'Longest without activity first', '-last_activity_at': 'Latest activity first' };

/** The filters of the API for the query of the page's address. Balance filters and orders need a currency. */
export function accountFilters({ q, owner, status, currency, min, max, key, value, sort }, currencies) {
  const digits = currencies?.get(currency);
  const minor = (text) => (text && digits ? readBalance(text, digits) : undefined);
  return {
    q, owner, status, currency, min_balance: minor(min), max_balance: minor(max), sort: currency ? sort : undefined,
    ...(key && value && { [`metadata.${key}`]: value }),
  };
}

/** A balance in minor units. It can be negative; text that is no amount is no filter. */
function readBalance(text, currency) {
  const isNegative = /^[-−]/.test(text.trim());
  const { minor } = readMoney(text.trim().replace(/^[-−]/, ''), currency, true);
  return minor === undefined ? undefined : isNegative ? -minor : minor;
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

/** The filters of the list. A full ID opens the account. */
function SearchForm({ query }) {
  const list = useCurrencies();
  const form = useRef(null);
  const [error, setError] = useState('');
  // Restores the fields after back navigation. The currency has its own effect, so that a late currency list does not
  // overwrite text that is being typed.
  useEffect(() => {
    for (const name of ['status', 'min', 'max', 'key', 'value', 'sort']) form.current.elements[name].value = query[name] ?? '';
    form.current.elements.search.value = query.q ?? query.owner ?? '';
  }, [JSON.stringify(query)]);
  useEffect(() => void (form.current.elements.currency.value = query.currency ?? ''), [query.currency, list]);
  const submit = (event) => {
    event?.preventDefault();
    const { search, status, currency, min, max, key, value, sort } = form.current.elements;
    const text = search.value.trim();
    if (ACCOUNT_ID.test(text)) return navigate(`#/accounts/${text.toLowerCase()}`);
    const needsCurrency = (min.value || max.value || sort.value) && !currency.value;
    const wrong = [min, max].find((field) => field.value.trim() && currency.value && readBalance(field.value, list.get(currency.value)) === undefined);
    setError(needsCurrency ? 'Choose a currency: balances and orders are compared within one.' : wrong ? `${wrong.value} is no amount in ${currency.value}.` : '');
    if (needsCurrency || wrong) return undefined;
    const filters = { q: text, status: status.value, currency: currency.value, min: min.value.trim(), max: max.value.trim(), key: key.value.trim(), value: value.value.trim(), sort: sort.value };
    const entries = new URLSearchParams(Object.entries(filters).filter(([, each]) => each));
    return navigate(`#/accounts${entries.size ? `?${entries}` : ''}`);
  };
  const isDetailed = query.min || query.max || query.key || query.sort;
  return html`<form class="card" role="search" aria-label="Accounts" ref=${form} onSubmit=${submit}>
    <div class="search">
      <div class="field grow"><label for="search">Account ID or owner</label>
        <input id="search" name="search" autocomplete="off" spellcheck="false" aria-describedby="search-hint" />
        <p class="hint" id="search-hint">Part of an account ID (four characters or more), or the beginning of an owner</p></div>
      <div class="field"><label for="status">Status</label>
        <select id="status" name="status" onChange=${submit}><option value="">Any</option><option value="open">Open</option><option value="frozen">Frozen</option><option value="closed">Closed</option></select></div>
      <div class="field"><label for="currency">Currency</label>
        <select id="currency" name="currency" onChange=${submit}><option value="">Any</option>${[...(list?.keys() ?? [])].map((code) => html`<option value=${code}>${code}</option>`)}</select></div>
      <button>Search</button>
    </div>
    <details open=${Boolean(isDetailed)}><summary>More filters and order</summary><div class="row">
      <div class="field"><label for="min">Balance from</label><input id="min" name="min" inputmode="decimal" autocomplete="off" /></div>
      <div class="field"><label for="max">Balance to</label><input id="max" name="max" inputmode="decimal" autocomplete="off" /></div>
      <div class="field"><label for="key">Metadata: name</label><input id="key" name="key" maxlength="40" autocomplete="off" /></div>
      <div class="field"><label for="value">Metadata: value</label><input id="value" name="value" maxlength="500" autocomplete="off" /></div>
      <div class="field"><label for="sort">Order</label><select id="sort" name="sort" onChange=${submit}><option value="">Newest first</option>${Object.entries(ORDERS).map(([name, label]) => html`<option value=${name}>${label}</option>`)}</select></div>
    </div></details>
    <div role="alert">${error && html`<p class="notice bad">${error}</p>`}</div>
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
