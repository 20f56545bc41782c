// Finding an account, and opening one.

import { AccountLink, Failure, Field, Money, More, OwnerLink, Status, Time, described, html, useCurrencies, useEffect, usePages, useRef, useState } from './parts.js';
import { read } from './api.js';
import { AmountField, Form, useForm } from './form.js';
import { go } from './route.js';

const ROWS = 100;
export const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export function Accounts({ query }) {
  const { owner, status, currency } = query;
  const list = usePages(
    (after, signal) => read('/v1/accounts', { owner, status, currency, after, limit: ROWS }, { signal }),
    [owner, status, currency],
  );
  return html`<h1 tabindex="-1">Accounts</h1>
    <${Find} query=${query} />
    <details class="card" open=${query.open === 'yes'}><summary>Open an account</summary><${Open} /></details>
    <section class="card" aria-labelledby="list">
      <h2 id="list">${owner ? html`Accounts of <span class="id">${owner}</span>` : 'Newest accounts first'}</h2>
      <div class="wide" tabindex="0" role="group" aria-label="Accounts">
        <table>
          <caption class="unseen">Accounts, newest opening first</caption>
          <thead><tr><th scope="col">Account</th><th scope="col">Owner</th><th scope="col" class="end">Balance</th><th scope="col">Status</th><th scope="col">Opened</th><th scope="col">Last activity</th></tr></thead>
          <tbody>${list.rows.map((account) => html`<${Row} key=${account.account_id} account=${account} />`)}</tbody>
        </table>
      </div>
      ${!list.isLoading && !list.error && list.rows.length === 0 && html`<p class="faint">There is no such account.</p>`}
      <${More} list=${list} what="accounts" unasked />
    </section>`;
}

function Row({ account }) {
  return html`<tr>
    <th scope="row"><${AccountLink} id=${account.account_id} /></th>
    <td class="by"><${OwnerLink} owner=${account.owner} /></td>
    <td class="end"><${Money} minor=${account.balance} currency=${account.currency} /></td>
    <td><${Status} status=${account.status} /></td>
    <td><${Time} at=${account.opened_at} /></td>
    <td><${Time} at=${account.last_activity_at} /></td>
  </tr>`;
}

/** One field for an id or an owner: what looks like an id is one, but for the owner whose accounts are shown. */
function Find({ query }) {
  const list = useCurrencies();
  const form = useRef(null);
  // The way back leads to what was asked for then. Currencies that come late touch nothing that is being written.
  useEffect(() => {
    form.current.elements.find.value = query.owner ?? '';
    form.current.elements.status.value = query.status ?? '';
  }, [query.owner, query.status]);
  useEffect(() => void (form.current.elements.currency.value = query.currency ?? ''), [query.currency, list]);
  const submit = (event) => {
    event?.preventDefault();
    const { find, status, currency } = form.current.elements;
    const text = find.value.trim();
    if (ID.test(text) && text !== query.owner) return go(`#/accounts/${text.toLowerCase()}`);
    const asked = new URLSearchParams(Object.entries({ owner: text, status: status.value, currency: currency.value }).filter(([, value]) => value));
    go(`#/accounts${asked.size ? `?${asked}` : ''}`);
  };
  return html`<form class="find card" role="search" ref=${form} onSubmit=${submit}>
    <div class="field grow"><label for="find">Account id or owner</label>
      <input id="find" name="find" autocomplete="off" spellcheck="false" aria-describedby="find-hint" />
      <p class="hint" id="find-hint">The whole id, or the owner exactly as it was written</p></div>
    <div class="field"><label for="status">Status</label>
      <select id="status" name="status" onChange=${submit}><option value="">Any</option><option value="open">Open</option><option value="frozen">Frozen</option><option value="closed">Closed</option></select></div>
    <div class="field"><label for="currency">Currency</label>
      <select id="currency" name="currency" onChange=${submit}><option value="">Any</option>${[...(list?.keys() ?? [])].map((code) => html`<option value=${code}>${code}</option>`)}</select></div>
    <button>Find</button>
  </form>`;
}

function Open() {
  const list = useCurrencies();
  const [code, setCode] = useState('EUR');
  const currency = list?.get(code);
  const form = useForm({
    fieldOf: { invalid_amount: 'initial_deposit', invalid_currency: 'currency' },
    async submit({ owner, initial_deposit: deposit }, { amount, send }) {
      const minor = deposit.trim() === '' ? 0 : amount('initial_deposit', deposit, currency, true);
      const body = { currency: code, ...(owner.trim() && { owner: owner.trim() }), ...(minor > 0 && { initial_deposit: minor }) };
      const receipt = await send({ path: '/v1/accounts', body, says: `Open an account in ${code}` });
      go(`#/accounts/${receipt.account_id}`);
    },
  });
  return html`<${Form} form=${form} button="Open the account">
    <div class="row">
      <${Field} id="open-owner" label="Owner" error=${form.errors.owner} hint="A customer's id without personal data; empty: yourself">
        <input ...${described('open-owner', form.errors.owner, true)} name="owner" maxlength="255" autocomplete="off" spellcheck="false" />
      </${Field}>
      <${Field} id="open-currency" label="Currency" error=${form.errors.currency} hint="For the life of the account">
        <select ...${described('open-currency', form.errors.currency, true)} name="currency" value=${code} onChange=${(event) => setCode(event.target.value)}>
          ${[...(list?.values() ?? [])].map(({ code: each, name }) => html`<option value=${each} selected=${each === code}>${each} – ${name}</option>`)}
        </select>
      </${Field}>
      <${AmountField} id="open-deposit" name="initial_deposit" label="Paid in at once" hint="May be empty" form=${form} currency=${currency} zero />
    </div>
  </${Form}>`;
}
