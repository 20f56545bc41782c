// What the forms of several commands share: the fields for reference, reason and the other account of a transfer, and `If-Match`.

import { Field, html, inputProps, useLoad } from './components.js';
import { read } from './api.js';
import { ACCOUNT_ID } from './route.js';

/** The field that an error of a command that moves money belongs to. */
export const MONEY_FIELDS = {
  invalid_amount: 'amount', insufficient_funds: 'amount', balance_limit_exceeded: 'amount', currency_mismatch: 'amount',
  account_frozen: 'amount', account_closed: 'amount', limit_exceeded: 'amount',
};

/** The `If-Match` of the version that the page shows. */
export const etag = ({ version }) => `"${version}"`;

const TEXT_CHARS_MAX = 500;
const STORED_HINT = 'Stored permanently. Do not enter personal data.';

export function TextField({ id, name, label, form, hint }) {
  const error = form.errors[name];
  return html`<${Field} id=${id} label=${label} error=${error} hint=${hint}>
    <input ...${inputProps(id, error, hint)} name=${name} maxlength=${TEXT_CHARS_MAX} autocomplete="off" onInput=${form.clearErrors} />
  </${Field}>`;
}

export const ReferenceField = (props) => html`<${TextField} ...${props} name="reference" label="Reference" hint=${STORED_HINT} />`;
export const ReasonField = (props) => html`<${TextField} ...${props} name="reason" label="Reason" hint=${STORED_HINT} />`;

/** The members of a command's body for the texts that were entered. */
export const enteredTexts = (values, ...names) => Object.fromEntries(names.map((name) => [name, values[name]?.trim()]).filter(([, text]) => text));

/** The account with this ID, once the ID is complete. `data` is `undefined` before, `error` says that it cannot be seen. */
export function useAccount(id) {
  const account = useLoad((signal) => (ACCOUNT_ID.test(id) ? read(`/v1/accounts/${id}`, {}, { signal }) : Promise.resolve()), [id]);
  const isCurrent = account.data?.account_id === id.toLowerCase();
  return { account: isCurrent ? account.data : undefined, isHidden: account.error?.status === 404 };
}

/** The field for the account that receives money. It says whose account it is, and warns if it cannot receive this money. */
export function RecipientField({ id, form, value, onValue, recipient, currency, hint = 'The full account ID' }) {
  const error = form.errors.to;
  const onInput = (event) => (onValue(event.target.value), form.clearErrors());
  return html`<${Field} id=${id} label="To account" error=${error} hint=${hint} note=${html`<${RecipientNote} ...${recipient} currency=${currency} />`}>
    <input ...${inputProps(id, error, true)} name="to" autocomplete="off" spellcheck="false" class="id" value=${value} onInput=${onInput} />
  </${Field}>`;
}

function RecipientNote({ account, isHidden, currency }) {
  if (isHidden) return html`<p class="warn-text">You may not see this account, or it does not exist. Check the ID.</p>`;
  if (!account) return null;
  const warning = recipientProblem(account, currency);
  return html`<p class="muted">${account.owner}, ${account.currency}, ${account.status}</p>${warning && html`<p class="error">${warning}</p>`}`;
}

/** Why an account cannot receive money in this currency, as a sentence; `undefined` if it can. */
export function recipientProblem(account, currency) {
  if (!account || !currency) return undefined;
  if (account.currency !== currency.code) return `That account is in ${account.currency}, this one in ${currency.code}. Money can be transferred only within one currency.`;
  if (account.status !== 'open') return `That account is ${account.status} and cannot receive money.`;
  return undefined;
}
