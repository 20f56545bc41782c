// The forms for one account: deposit, withdraw, transfer, freeze, unfreeze and close. Each form sends its command with an own
// idempotency key and, where the API accepts it, with `If-Match` for the account version that the page shows.

import { Field, Fragment, Money, html, inputProps, useLoad, useState } from './components.js';
import { read } from './api.js';
import { AmountField, Form, useForm } from './form.js';
import { formatMoney } from './money.js';
import { StatementForm } from './statement.js';
import { ACCOUNT_ID } from './accounts.js';

const TEXT_CHARS_MAX = 500;

/** @param {{account: object, currency?: object, onReceipt: (receipt: object) => void}} props */
export function Actions(props) {
  const { status } = props.account;
  return html`<section class="card actions" aria-labelledby="actions"><h2 id="actions" tabindex="-1">Actions</h2>
    ${status === 'closed' ? html`<p>This account is closed permanently.</p>` : html`<${Fragment}>
      <details name="action" open><summary>Deposit</summary><${MoneyForm} ...${props} id="deposit" path="deposits" action="Deposit" done="Deposited" /></details>
      <details name="action"><summary>Withdraw</summary><${MoneyForm} ...${props} id="withdraw" path="withdrawals" action="Withdraw" done="Withdrawn" /></details>
      <details name="action"><summary>Transfer</summary><${TransferForm} ...${props} /></details>
      ${/* The key closes this section after a status change, so that a second click cannot undo the change. */ ''}
      <details key=${status} name="action"><summary>${status === 'frozen' ? 'Unfreeze' : 'Freeze'}</summary>${status === 'frozen'
        ? html`<${StatusForm} ...${props} path="unfreeze" action="Unfreeze" effect="Allows deposits, withdrawals and transfers again." />`
        : html`<${StatusForm} ...${props} path="freeze" action="Freeze" effect="Blocks deposits, withdrawals and transfers until the account is unfrozen." />`}</details>
      <details name="action"><summary>Close</summary><${StatusForm} ...${props} path="close" action="Close permanently" effect="Only an account with a zero balance and without active holds can be closed. A closed account cannot be reopened." danger /></details>
    </${Fragment}>`}
    <details name="action"><summary>Statement</summary><${StatementForm} account=${props.account} /></details>
  </section>`;
}

const etag = ({ version }) => `"${version}"`;

/** The balance that an error reports, and what is available of it if that differs, as a sentence. */
const explainBalance = (currency) => ({ balance, available = balance }) => {
  if (balance === undefined || !currency) return '';
  const rest = available === balance ? '' : `, and ${formatMoney(available, currency)} is available`;
  return `The account balance is ${formatMoney(balance, currency)}${rest}.`;
};

const MONEY_FIELDS = {
  invalid_amount: 'amount', insufficient_funds: 'amount', balance_limit_exceeded: 'amount', currency_mismatch: 'amount',
  account_frozen: 'amount', account_closed: 'amount', limit_exceeded: 'amount',
};

function MoneyForm({ account, currency, onReceipt, id, path, action, done }) {
  const form = useForm({
    fieldOf: MONEY_FIELDS,
    explain: explainBalance(currency),
    async submit(values, { readAmount, send }) {
      const minor = readAmount('amount', values.amount, currency);
      const body = { amount: minor, currency: account.currency, ...referenceOf(values), ...(values.channel && { channel: values.channel }) };
      const label = `${action} ${formatMoney(minor, currency)}`;
      const receipt = await send({ path: `/v1/accounts/${account.account_id}/${path}`, body, ifMatch: etag(account), label });
      onReceipt(receipt);
      return html`${done}: <${Money} minor=${minor} currency=${account.currency} />. New balance: <${Money} minor=${receipt.balance} currency=${receipt.currency} />.`;
    },
  });
  return html`<${Form} form=${form} button=${action}>
    <${AmountField} id=${`${id}-amount`} form=${form} currency=${currency} />
    <${ReferenceField} id=${`${id}-reference`} form=${form} />
    <${Field} id=${`${id}-channel`} label="Channel" error=${form.errors.channel}>
      <select ...${inputProps(`${id}-channel`, form.errors.channel)} name="channel">
        <option value="branch">Branch</option><option value="atm">ATM</option><option value="online">Online</option><option value="">Not specified</option>
      </select>
    </${Field}>
  </${Form}>`;
}

function TransferForm({ account, currency, onReceipt }) {
  const [to, setTo] = useState('');
  const form = useForm({
    fieldOf: { ...MONEY_FIELDS, account_not_found: 'to', same_account: 'to', currency_mismatch: 'to' },
    explain: explainBalance(currency),
    async submit(values, { readAmount, send }) {
      const minor = readAmount('amount', values.amount, currency);
      const body = { from: account.account_id, to: values.to.trim(), amount: minor, currency: account.currency, ...referenceOf(values) };
      const receipt = await send({ path: '/v1/transfers', body, label: `Transfer ${formatMoney(minor, currency)}` });
      setTo('');
      onReceipt(receipt.from);
      return html`Transferred: <${Money} minor=${minor} currency=${account.currency} />. New balance: <${Money} minor=${receipt.from.balance} currency=${receipt.currency} />.`;
    },
  });
  return html`<${Form} form=${form} button="Transfer">
    <${Field} id="transfer-to" label="To account" error=${form.errors.to} hint="The full account ID" note=${html`<${Recipient} id=${to.trim()} />`}>
      <input ...${inputProps('transfer-to', form.errors.to, true)} name="to" autocomplete="off" spellcheck="false" class="id" onInput=${(event) => (setTo(event.target.value), form.clearErrors())} />
    </${Field}>
    <${AmountField} id="transfer-amount" form=${form} currency=${currency} />
    <${ReferenceField} id="transfer-reference" form=${form} />
  </${Form}>`;
}

/** Owner, currency and status of the recipient account; nothing if the caller may not see it. */
function Recipient({ id }) {
  const account = useLoad((signal) => (ACCOUNT_ID.test(id) ? read(`/v1/accounts/${id}`, {}, { signal }) : Promise.resolve()), [id]);
  if (!account.data || account.data.account_id !== id.toLowerCase()) return null;
  return html`<p class="muted">${account.data.owner}, ${account.data.currency}, ${account.data.status}</p>`;
}

function StatusForm({ account, currency, onReceipt, path, action, effect, danger }) {
  const form = useForm({
    explain: explainBalance(currency),
    async submit(values, { send }) {
      const body = values.reason.trim() ? { reason: values.reason.trim() } : {};
      const receipt = await send({ path: `/v1/accounts/${account.account_id}/${path}`, body, ifMatch: etag(account), label: action });
      onReceipt(receipt);
      // The new status replaces this form, so the focus moves to the heading. The account header shows the new status.
      document.querySelector('#actions').focus();
    },
  });
  return html`<${Form} form=${form} button=${action} danger=${danger}>
    <p class="muted">${effect}</p>
    <${Field} id=${`${path}-reason`} label="Reason" error=${form.errors.reason} hint="Stored permanently. Do not enter personal data.">
      <input ...${inputProps(`${path}-reason`, form.errors.reason, true)} name="reason" maxlength=${TEXT_CHARS_MAX} autocomplete="off" />
    </${Field}>
  </${Form}>`;
}

function ReferenceField({ id, form }) {
  return html`<${Field} id=${id} label="Reference" error=${form.errors.reference} hint="Stored permanently. Do not enter personal data.">
    <input ...${inputProps(id, form.errors.reference, true)} name="reference" maxlength=${TEXT_CHARS_MAX} autocomplete="off" />
  </${Field}>`;
}

const referenceOf = ({ reference }) => (reference.trim() ? { reference: reference.trim() } : {});
