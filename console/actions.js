// The actions on one account: deposit, withdraw, transfer, hold, freeze, unfreeze, close and statement. An action that the scopes
// of the token do not permit is not shown. Each form sends its command with an own idempotency key and, where the API accepts it,
// with `If-Match` for the account version that the page shows.

import { Field, Money, html, inputProps, useState } from './components.js';
import { MONEY_FIELDS, ReasonField, RecipientField, ReferenceField, enteredTexts, etag, recipientProblem, useAccount } from './fields.js';
import { AmountField, FieldError, Form, useForm } from './form.js';
import { PlaceHoldForm } from './hold_forms.js';
import { formatMoney } from './money.js';
import { permissions } from './permissions.js';
import { StatementForm } from './statement.js';

/** @param {{account: object, currency?: object, onReceipt: (receipt: object) => void}} props */
export function Actions(props) {
  const { status } = props.account;
  const mayWrite = permissions.write(props.account);
  const isFrozen = status === 'frozen';
  const isClosed = status === 'closed';
  const sections = isClosed ? [] : [
    mayWrite && ['Deposit', html`<${MoneyForm} ...${props} id="deposit" path="deposits" action="Deposit" done="Deposited" />`],
    mayWrite && ['Withdraw', html`<${MoneyForm} ...${props} id="withdraw" path="withdrawals" action="Withdraw" done="Withdrawn" />`],
    mayWrite && ['Transfer', html`<${TransferForm} ...${props} />`],
    permissions.holds() && ['Place a hold', html`<${PlaceHoldForm} ...${props} />`],
    permissions.freeze() && (isFrozen
      ? ['Unfreeze', html`<${StatusForm} ...${props} path="unfreeze" action="Unfreeze" effect="Allows deposits, withdrawals and transfers again." />`]
      : ['Freeze', html`<${StatusForm} ...${props} path="freeze" action="Freeze" effect="Blocks deposits, withdrawals and transfers until the account is unfrozen." />`]),
    mayWrite && ['Close', html`<${StatusForm} ...${props} path="close" action="Close permanently" effect="Only an account with a zero balance and without active holds can be closed. A closed account cannot be reopened." danger />`],
  ].filter(Boolean);
  return html`<section class="card actions" aria-labelledby="actions"><h2 id="actions" tabindex="-1">Actions</h2>
    ${isClosed && html`<p>This account is closed permanently.</p>`}
    ${!isClosed && sections.length === 0 && html`<p class="muted">Your access token permits reading only.</p>`}
    ${/* A status change closes the section by its key, so that a second click cannot undo the change. */ ''}
    ${sections.map(([title, form], n) => html`<details key=${/freeze/i.test(title) ? status : title} name="action" open=${n === 0}><summary>${title}</summary>${form}</details>`)}
    <details name="action"><summary>Statement</summary><${StatementForm} account=${props.account} /></details>
  </section>`;
}

function MoneyForm({ account, currency, onReceipt, id, path, action, done }) {
  const form = useForm({
    fieldOf: MONEY_FIELDS,
    context: () => ({ currency }),
    async submit(values, { readAmount, send }) {
      const minor = readAmount('amount', values.amount, currency);
      const body = { amount: minor, currency: account.currency, ...enteredTexts(values, 'reference', 'channel') };
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
  const recipient = useAccount(to.trim());
  const form = useForm({
    fieldOf: { ...MONEY_FIELDS, account_not_found: 'to', same_account: 'to', currency_mismatch: 'to' },
    context: () => ({ currency, otherAccountId: to.trim().toLowerCase(), otherLabel: 'The recipient’s account' }),
    async submit(values, { readAmount, send }) {
      const minor = readAmount('amount', values.amount, currency);
      const problem = recipientProblem(recipient.account, currency);
      if (problem) throw new FieldError('to', problem);
      const body = { from: account.account_id, to: values.to.trim(), amount: minor, currency: account.currency, ...enteredTexts(values, 'reference') };
      const receipt = await send({ path: '/v1/transfers', body, label: `Transfer ${formatMoney(minor, currency)}` });
      setTo('');
      onReceipt(receipt.from);
      return html`Transferred: <${Money} minor=${minor} currency=${account.currency} />. New balance: <${Money} minor=${receipt.from.balance} currency=${receipt.currency} />.`;
    },
  });
  return html`<${Form} form=${form} button="Transfer">
    <${RecipientField} id="transfer-to" form=${form} value=${to} onValue=${setTo} recipient=${recipient} currency=${currency} />
    <${AmountField} id="transfer-amount" form=${form} currency=${currency} />
    <${ReferenceField} id="transfer-reference" form=${form} />
  </${Form}>`;
}

function StatusForm({ account, currency, onReceipt, path, action, effect, danger }) {
  const form = useForm({
    context: () => ({ currency }),
    async submit(values, { send }) {
      const receipt = await send({ path: `/v1/accounts/${account.account_id}/${path}`, body: enteredTexts(values, 'reason'), ifMatch: etag(account), label: action });
      onReceipt(receipt);
      // The new status replaces this form, so the focus moves to the heading. The account header shows the new status.
      document.querySelector('#actions').focus();
    },
  });
  return html`<${Form} form=${form} button=${action} danger=${danger}>
    <p class="muted">${effect}</p>
    <${ReasonField} id=${`${path}-reason`} form=${form} />
  </${Form}>`;
}
