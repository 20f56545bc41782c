// The account list: search, filters, and the form that opens an account.

import { AccountLink, Field, ListFooter, Money, OwnerLink, Status, Time, html, inputProps, useCurrencies, useEffect, usePages, useRef, useState } from './components.js';
import { read } from './api.js';
import { AmountField, Form, useForm } from './form.js';
import { navigate } from './route.js';

const PAGE_ROWS = 100;
export const ACCOUNT_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export function Accounts({ query }) {
  const { owner, status, currency } = query;
  const list = usePages(
    (after, signal) => read('/v1/accounts', { owner, status, currency, after, limit: PAGE_ROWS }, { signal }),
    [owner, status, currency],
  );
  return html`<h1 tabindex="-1">Accounts</h1>
    <${SearchForm} query=${query} />
    <details class="card" open=${query.open === 'yes'}><summary>Open an account</summary><${OpenAccountForm} /></details>
    <section class="card" aria-labelledby="list">
      <h2 id="list">${owner ? html`Accounts of <span class="id">${owner}</span>` : 'Newest accounts first'}</h2>
      <div class="table-scroll" tabindex="0" role="group" aria-label="Accounts">
        <table>
          <caption class="visually-hidden">Accounts, newest first</caption>
          <thead><tr><th scope="col">Account</th><th scope="col">Owner</th><th scope="col" class="end">Balance</th><th scope="col">Status</th><th scope="col">Opened</th><th scope="col">Last activity</th></tr></thead>
          <tbody>${list.rows.map((account) => html`<${AccountRow} key=${account.account_id} account=${account} />`)}</tbody>
        </table>
      </div>
      ${!list.isLoading && !list.error && !list.next && list.rows.length === 0 && html`<p class="muted">No accounts match.</p>`}
      <${ListFooter} list=${list} itemsLabel="accounts" autoLoad />
    </section>`;
}

function AccountRow({ account }) {
  return html`<tr>
    <th scope="row"><${AccountLink} id=${account.account_id} /></th>
    <td class="name"><${OwnerLink} owner=${account.owner} /></td>
    <td class="end"><${Money} minor=${account.balance} currency=${account.currency} /></td>
    <td><${Status} status=${account.status} /></td>
    <td><${Time} at=${account.opened_at} /></td>
    <td><${Time} at=${account.last_activity_at} /></td>
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
    async submit({ owner, initial_deposit: deposit }, { readAmount, send }) {
      const minor = deposit.trim() === '' ? 0 : readAmount('initial_deposit', deposit, currency, true);
      const body = { currency: code, ...(owner.trim() && { owner: owner.trim() }), ...(minor > 0 && { initial_deposit: minor }) };
      const receipt = await send({ path: '/v1/accounts', body, label: `Open account in ${code}` });
      navigate(`#/accounts/${receipt.account_id}`);
    },
  });
  return html`<${Form} form=${form} button="Open account">
    <div class="row">
      <${Field} id="open-owner" label="Owner" error=${form.errors.owner} hint="Customer ID without personal data. Leave empty to open the account for yourself.">
        <input ...${inputProps('open-owner', form.errors.owner, true)} name="owner" maxlength="255" autocomplete="off" spellcheck="false" />
      </${Field}>
      <${Field} id="open-currency" label="Currency" error=${form.errors.currency} hint="Cannot be changed later">
        <select ...${inputProps('open-currency', form.errors.currency, true)} name="currency" value=${code} onChange=${(event) => setCode(event.target.value)}>
          ${[...(list?.values() ?? [])].filter(({ withdrawn }) => !withdrawn).map(({ code: each, name }) => html`<option value=${each} selected=${each === code}>${each} – ${name}</option>`)}
        </select>
      </${Field}>
      <${AmountField} id="open-deposit" name="initial_deposit" label="Opening deposit" hint="Optional" form=${form} currency=${currency} zero />
    </div>
  </${Form}>`;
}
