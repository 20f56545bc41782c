// What a teller does with one account. Each form sends under a key of its own and, where the API takes it, only if the
// account is still as it is shown.

import { Field, Fragment, Money, described, html, useLoad, useState } from './parts.js';
import { read } from './api.js';
import { AmountField, Form, useForm } from './form.js';
import { formatMoney } from './money.js';
import { Statement } from './statement.js';
import { ID } from './accounts.js';

const TEXT_CHARS_MAX = 500;

/** @param {{account: object, currency?: object, onReceipt: (receipt: object) => void}} props */
export function Actions(props) {
  const { status } = props.account;
  return html`<section class="card actions" aria-labelledby="do"><h2 id="do" tabindex="-1">At the counter</h2>
    ${status === 'closed' ? html`<p>This account is closed. It stays as it is.</p>` : html`<${Fragment}>
      <details name="action" open><summary>Deposit</summary><${Move} ...${props} id="deposit" path="deposits" does="Deposit" out=${false} /></details>
      <details name="action"><summary>Withdraw</summary><${Move} ...${props} id="withdraw" path="withdrawals" does="Withdraw" out=${true} /></details>
      <details name="action"><summary>Transfer</summary><${Transfer} ...${props} /></details>
      ${/* What would undo the one before comes closed: nobody clicks it by mistake. */ ''}
      <details key=${status} name="action"><summary>${status === 'frozen' ? 'Unfreeze' : 'Freeze'}</summary>${status === 'frozen'
        ? html`<${Change} ...${props} path="unfreeze" does="Unfreeze" says="Money can move again." />`
        : html`<${Change} ...${props} path="freeze" does="Freeze" says="No money moves until the account is unfrozen." />`}</details>
      <details name="action"><summary>Close</summary><${Change} ...${props} path="close" does="Close for ever" says="Only an empty account can be closed, and a closed account stays closed." danger /></details>
    </${Fragment}>`}
    <details name="action"><summary>Statement</summary><${Statement} account=${props.account} /></details>
  </section>`;
}

const etag = ({ version }) => `"${version}"`;

/** What a refusal tells of the balance, as a person reads it. */
const explain = (currency) => ({ balance }) => (balance === undefined || !currency ? '' : `The account holds ${formatMoney(balance, currency)}.`);

const MONEY_FIELDS = {
  invalid_amount: 'amount', insufficient_funds: 'amount', balance_limit_exceeded: 'amount', currency_mismatch: 'amount',
  account_frozen: 'amount', account_closed: 'amount',
};

function Move({ account, currency, onReceipt, id, path, does, out }) {
  const form = useForm({
    fieldOf: MONEY_FIELDS,
    explain: explain(currency),
    async submit(values, { amount, send }) {
      const minor = amount('amount', values.amount, currency);
      const body = { amount: minor, currency: account.currency, ...words(values), ...(values.channel && { channel: values.channel }) };
      const says = `${does} ${formatMoney(minor, currency)}`;
      const receipt = await send({ path: `/v1/accounts/${account.account_id}/${path}`, body, ifMatch: etag(account), says });
      onReceipt(receipt);
      return html`${out ? 'Paid out' : 'Paid in'}: <${Money} minor=${minor} currency=${account.currency} />. The balance is <${Money} minor=${receipt.balance} currency=${receipt.currency} />.`;
    },
  });
  return html`<${Form} form=${form} button=${does}>
    <${AmountField} id=${`${id}-amount`} form=${form} currency=${currency} />
    <${Reference} id=${`${id}-reference`} form=${form} />
    <${Field} id=${`${id}-channel`} label="Where" error=${form.errors.channel}>
      <select ...${described(`${id}-channel`, form.errors.channel)} name="channel">
        <option value="branch">At the branch</option><option value="atm">At a machine</option><option value="online">Online</option><option value="">Not said</option>
      </select>
    </${Field}>
  </${Form}>`;
}

function Transfer({ account, currency, onReceipt }) {
  const [to, setTo] = useState('');
  const form = useForm({
    fieldOf: { ...MONEY_FIELDS, account_not_found: 'to', same_account: 'to', currency_mismatch: 'to' },
    explain: explain(currency),
    async submit(values, { amount, send }) {
      const minor = amount('amount', values.amount, currency);
      const body = { from: account.account_id, to: values.to.trim(), amount: minor, currency: account.currency, ...words(values) };
      const receipt = await send({ path: '/v1/transfers', body, says: `Transfer ${formatMoney(minor, currency)}` });
      setTo('');
      onReceipt(receipt.from);
      return html`Transferred: <${Money} minor=${minor} currency=${account.currency} />. The balance is <${Money} minor=${receipt.from.balance} currency=${receipt.currency} />.`;
    },
  });
  return html`<${Form} form=${form} button="Transfer">
    <${Field} id="transfer-to" label="To the account" error=${form.errors.to} hint="The whole id" note=${html`<${Receiver} id=${to.trim()} />`}>
      <input ...${described('transfer-to', form.errors.to, true)} name="to" autocomplete="off" spellcheck="false" class="id" onInput=${(event) => (setTo(event.target.value), form.clear())} />
    </${Field}>
    <${AmountField} id="transfer-amount" form=${form} currency=${currency} />
    <${Reference} id="transfer-reference" form=${form} />
  </${Form}>`;
}

/** Whose account it is, for whoever may know. */
function Receiver({ id }) {
  const found = useLoad((signal) => (ID.test(id) ? read(`/v1/accounts/${id}`, {}, { signal }) : Promise.resolve()), [id]);
  if (!found.data || found.data.account_id !== id.toLowerCase()) return null;
  return html`<p class="faint">${found.data.owner}, ${found.data.currency}, ${found.data.status}</p>`;
}

function Change({ account, currency, onReceipt, path, does, says, danger }) {
  const form = useForm({
    explain: explain(currency),
    async submit(values, { send }) {
      const body = values.reason.trim() ? { reason: values.reason.trim() } : {};
      const receipt = await send({ path: `/v1/accounts/${account.account_id}/${path}`, body, ifMatch: etag(account), says: does });
      onReceipt(receipt);
      // This form goes with what it has changed, and the account's head tells what that is.
      document.querySelector('#do').focus();
    },
  });
  return html`<${Form} form=${form} button=${does} danger=${danger}>
    <p class="faint">${says}</p>
    <${Field} id=${`${path}-reason`} label="Reason" error=${form.errors.reason} hint="Kept for ever; no personal data">
      <input ...${described(`${path}-reason`, form.errors.reason, true)} name="reason" maxlength=${TEXT_CHARS_MAX} autocomplete="off" />
    </${Field}>
  </${Form}>`;
}

function Reference({ id, form }) {
  return html`<${Field} id=${id} label="Reference" error=${form.errors.reference} hint="Kept for ever; no personal data">
    <input ...${described(id, form.errors.reference, true)} name="reference" maxlength=${TEXT_CHARS_MAX} autocomplete="off" />
  </${Field}>`;
}

const words = ({ reference }) => (reference.trim() ? { reference: reference.trim() } : {});
