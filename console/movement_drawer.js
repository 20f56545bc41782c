// The drawer with everything about one transaction: what happened, who caused it, its event, its reversal, and a receipt to print.

import { AccountLink, Drawer, ErrorNotice, Metadata, Money, Time, html, useLoad } from './components.js';
import { read } from './api.js';
import { exclusiveEnd } from './datetime.js';
import { ReasonField, enteredTexts, etag } from './fields.js';
import { AmountField, Form, useForm } from './form.js';
import { isDebit, transactionLabel } from './labels.js';
import { formatMoney } from './money.js';
import { permissions } from './permissions.js';
import { accountAddress, navigate } from './route.js';

const ROWS_MAX = 1000;

/** @param {{account: object, query: {transaction: string, on: string}, currency?: object, onReceipt: Function}} props `on` is the time of the transaction */
export function MovementDrawer({ account, query, currency, onReceipt }) {
  const { account_id: id, version: currentVersion } = account;
  const version = Number(query.transaction);
  const movement = useLoad((signal) => readMovement(id, version, query.on, signal), [id, version, query.on, currentVersion]);
  const event = useLoad((signal) => (permissions.audit() ? readEvent(id, version, signal) : Promise.resolve()), [id, version]);
  const row = movement.data;
  const close = () => navigate(accountAddress(id, { ...query, transaction: undefined, on: undefined }), true);
  return html`<${Drawer} id="movement-drawer" title=${row ? transactionLabel(row.kind) : 'Transaction'} close=${close}>
    <${ErrorNotice} error=${movement.error} retry=${movement.reload} />
    ${!movement.isLoading && !movement.error && !row && html`<p class="notice bad">This account has no transaction with version ${query.transaction}.</p>`}
    ${row && html`<${Facts} row=${row} account=${account} event=${event.data} />`}
    <${ErrorNotice} error=${event.error} retry=${event.reload} />
    ${row && html`<p class="buttons no-print"><button type="button" class="secondary" onClick=${() => print()}>Print receipt</button></p>`}
    ${row && isReversible(row) && account.status === 'open' && permissions.reverse() && html`<div class="drawer-actions no-print">
      <details><summary>Reverse</summary><${ReversalForm} row=${row} account=${account} currency=${currency} onReceipt=${onReceipt} /></details>
    </div>`}
    <p class="print-only muted">Printed from Passbook on <${Time} at=${new Date().toISOString()} />.</p>
  </${Drawer}>`;
}

const isReversible = ({ kind, amount, reversed }) => !kind.startsWith('reversal') && reversed < amount;

/** One transaction. Its time narrows the query, because the API finds transactions by time and not by version. */
async function readMovement(id, version, on, signal) {
  const isTime = !Number.isNaN(Date.parse(on ?? ''));
  const period = isTime ? { from: on, to: exclusiveEnd(on) } : {};
  const { data } = await read(`/v1/accounts/${id}/transactions`, { ...period, limit: ROWS_MAX }, { signal });
  return data.find((row) => row.version === version);
}

async function readEvent(id, version, signal) {
  const { data } = await read(`/v1/accounts/${id}/events`, { after_version: version - 1, limit: 1 }, { signal, fresh: false });
  return data[0];
}

function Facts({ row, account, event }) {
  const money = (minor, sign = '') => html`<${Money} minor=${minor} currency=${account.currency} sign=${sign} />`;
  const fact = (label, value, className) => value !== null && value !== undefined && value !== false && html`<dt>${label}</dt><dd class=${className}>${value}</dd>`;
  return html`<p class=${`drawer-amount ${isDebit(row.kind) ? '' : 'good-text'}`}>${money(row.amount, isDebit(row.kind) ? '−' : '+')}</p>
  <dl class="facts">
    ${fact('Time', html`<${Time} at=${row.recorded_at} />`)}
    ${fact('Account', account.account_id, 'id break')}
    ${fact('Owner', account.owner, 'break')}
    ${fact(isDebit(row.kind) ? 'To account' : 'From account', row.counterparty_account_id && html`<${AccountLink} id=${row.counterparty_account_id} full />`, 'break')}
    ${fact('Balance after', money(row.balance_after))}
    ${fact('Reference', row.reference, 'break')}
    ${fact('Channel', row.channel && ({ branch: 'Branch', atm: 'ATM', online: 'Online' }[row.channel] ?? row.channel))}
    ${fact('Reversed', row.reversed > 0 && money(row.reversed))}
    ${fact('Reverses', row.reverses_version && `Transaction ${row.reverses_version}`)}
    ${fact('Transfer ID', row.transfer_id, 'id break')}
    ${fact('Hold ID', row.hold_id, 'id break')}
    ${fact('Transaction', `Version ${row.version} of the account`)}
    ${fact('Event', row.event_id, 'id break')}
    ${event && fact('By', event.metadata.user_id, 'break')}
    ${event && fact('Request ID', event.metadata.correlation_id, 'id break')}
    ${event && fact('Batch ID', event.metadata.batch_id, 'id break')}
    ${event && fact('Hash', event.hash, 'id break')}
  </dl>
  <${Metadata} pairs=${row.metadata} />`;
}

function ReversalForm({ row, account, currency, onReceipt }) {
  const left = row.amount - row.reversed;
  const form = useForm({
    fieldOf: { exceeds_reversible: 'amount', insufficient_funds: 'amount', invalid_amount: 'amount', balance_limit_exceeded: 'amount' },
    context: () => ({ currency, otherAccountId: row.counterparty_account_id ?? undefined }),
    async submit(values, { readAmount, send }) {
      const minor = values.amount.trim() === '' ? left : readAmount('amount', values.amount, currency);
      const path = `/v1/accounts/${account.account_id}/transactions/${row.version}/reversal`;
      const label = `Reverse ${formatMoney(minor, currency)}`;
      const receipt = await send({ path, body: { amount: minor, ...enteredTexts(values, 'reason') }, ifMatch: etag(account), label });
      onReceipt([receipt.from, receipt.to, receipt].find((each) => each?.account_id === account.account_id));
      return html`Reversed: <${Money} minor=${minor} currency=${account.currency} />.`;
    },
  });
  return html`<${Form} form=${form} button="Reverse" danger>
    <p class="muted">Moves the money back. <${Money} minor=${left} currency=${account.currency} /> can be reversed.</p>
    <${AmountField} id="reversal-amount" form=${form} currency=${currency} hint="Leave empty to reverse all of it" />
    <${ReasonField} id="reversal-reason" form=${form} />
  </${Form}>`;
}
