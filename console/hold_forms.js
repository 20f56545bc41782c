// The forms for holds: place, capture and void.

import { Field, Money, Time, html, inputProps, useState } from './components.js';
import { MONEY_FIELDS, ReasonField, RecipientField, ReferenceField, enteredTexts, etag, recipientProblem, useAccount } from './fields.js';
import { AmountField, FieldError, Form, useForm } from './form.js';
import { formatMoney } from './money.js';

const DAY_S = 86_400;
/** How long a hold lasts, as the choices of the form. */
const DURATIONS = [[3600, '1 hour'], [DAY_S, '1 day'], [7 * DAY_S, '7 days'], [30 * DAY_S, '30 days'], [365 * DAY_S, '365 days']];
const DEFAULT_S = 7 * DAY_S;

export function PlaceHoldForm({ account, currency, onReceipt }) {
  const form = useForm({
    fieldOf: { ...MONEY_FIELDS, too_many_holds: 'amount' },
    context: () => ({ currency }),
    async submit(values, { readAmount, send }) {
      const minor = readAmount('amount', values.amount, currency);
      const body = { amount: minor, currency: account.currency, expires_in_seconds: Number(values.expires_in_seconds), ...enteredTexts(values, 'reference') };
      const label = `Hold ${formatMoney(minor, currency)}`;
      const receipt = await send({ path: `/v1/accounts/${account.account_id}/holds`, body, ifMatch: etag(account), label });
      onReceipt(receipt);
      return html`Held: <${Money} minor=${minor} currency=${account.currency} /> until <${Time} at=${receipt.hold.expires_at} />. Available: <${Money} minor=${receipt.available} currency=${receipt.currency} />.`;
    },
  });
  const error = form.errors.expires_in_seconds;
  return html`<${Form} form=${form} button="Place hold">
    <p class="muted">Sets money aside. The balance stays, the available amount falls.</p>
    <${AmountField} id="hold-amount" form=${form} currency=${currency} />
    <${Field} id="hold-expires" label="Ends after" error=${error}>
      <select ...${inputProps('hold-expires', error)} name="expires_in_seconds">
        ${DURATIONS.map(([seconds, label]) => html`<option value=${seconds} selected=${seconds === DEFAULT_S} defaultSelected=${seconds === DEFAULT_S}>${label}</option>`)}
      </select>
    </${Field}>
    <${ReferenceField} id="hold-reference" form=${form} />
  </${Form}>`;
}

/** @param {{hold: object, account: object, currency?: object, onReceipt: (receipt: object) => void}} props */
export function CaptureHoldForm({ hold, account, currency, onReceipt }) {
  const [to, setTo] = useState('');
  const [isPartial, setPartial] = useState(false);
  const recipient = useAccount(to.trim());
  const form = useForm({
    fieldOf: { exceeds_hold: 'amount', invalid_amount: 'amount', account_not_found: 'to', same_account: 'to', currency_mismatch: 'to' },
    context: () => ({ currency, otherAccountId: to.trim().toLowerCase(), otherLabel: 'The recipient’s account' }),
    async submit(values, { readAmount, send }) {
      const minor = values.amount.trim() === '' ? hold.remaining : readAmount('amount', values.amount, currency);
      const problem = recipientProblem(recipient.account, currency);
      if (problem) throw new FieldError('to', problem);
      const body = { amount: minor, final: values.final !== 'no', ...enteredTexts(values, 'to', 'reference') };
      const label = `Capture ${formatMoney(minor, currency)} of a hold`;
      const receipt = await send({ path: `/v1/accounts/${account.account_id}/holds/${hold.hold_id}/capture`, body, ifMatch: etag(account), label });
      setTo('');
      setPartial(false);
      onReceipt(receipt.from ?? receipt);
      return html`Captured: <${Money} minor=${minor} currency=${account.currency} />.`;
    },
  });
  const onInput = (event) => setPartial(event.target.name === 'amount' ? event.target.value.trim() !== '' : isPartial);
  return html`<div onInput=${onInput}><${Form} form=${form} button="Capture">
    <${AmountField} id="capture-amount" form=${form} currency=${currency} hint="Leave empty to take all that is left" />
    ${isPartial && html`<${Field} id="capture-final" label="What remains">
      <select ...${inputProps('capture-final')} name="final"><option value="yes">Release it</option><option value="no">Keep it on hold</option></select>
    </${Field}>`}
    <${RecipientField} id="capture-to" form=${form} value=${to} onValue=${setTo} recipient=${recipient} currency=${currency} hint="The full account ID. Leave empty if the money leaves the bank." />
    <${ReferenceField} id="capture-reference" form=${form} />
  </${Form}></div>`;
}

export function VoidHoldForm({ hold, account, onReceipt }) {
  const form = useForm({
    async submit(values, { send }) {
      const path = `/v1/accounts/${account.account_id}/holds/${hold.hold_id}/void`;
      const receipt = await send({ path, body: enteredTexts(values, 'reason'), ifMatch: etag(account), label: 'Void a hold' });
      onReceipt(receipt);
      return 'Voided. The money is available again.';
    },
  });
  return html`<${Form} form=${form} button="Void hold" danger>
    <p class="muted">Ends the hold without taking money.</p>
    <${ReasonField} id="void-reason" form=${form} />
  </${Form}>`;
}
