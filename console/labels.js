// Labels and descriptions for event types and transaction kinds.

import { formatMoney } from './money.js';

const EVENT_LABELS = {
  AccountOpened: 'Opened',
  MoneyDeposited: 'Deposit',
  MoneyWithdrawn: 'Withdrawal',
  TransferSent: 'Transfer out',
  TransferReceived: 'Transfer in',
  HoldPlaced: 'Hold placed',
  HoldCaptured: 'Hold captured',
  HoldReleased: 'Hold released',
  MovementReversed: 'Reversal',
  LimitsSet: 'Limits set',
  AccountFrozen: 'Frozen',
  AccountUnfrozen: 'Unfrozen',
  AccountClosed: 'Closed',
  WebhookRegistered: 'Webhook registered',
  WebhookPaused: 'Webhook paused',
  WebhookResumed: 'Webhook resumed',
  WebhookDeleted: 'Webhook deleted',
};

/** The types of events that a webhook can be registered for. */
export const EVENT_TYPES = Object.keys(EVENT_LABELS);

export const TRANSACTION_LABELS = {
  opening_deposit: 'Opening deposit',
  deposit: 'Deposit',
  withdrawal: 'Withdrawal',
  transfer_in: 'Transfer in',
  transfer_out: 'Transfer out',
  capture: 'Capture',
  reversal_in: 'Reversal in',
  reversal_out: 'Reversal out',
};

const DEBITS = ['withdrawal', 'transfer_out', 'capture', 'reversal_out'];

/** An event type without a label, such as one from a newer release, is shown by its own name. */
export const eventLabel = (type) => EVENT_LABELS[type] ?? type;
export const transactionLabel = (kind) => TRANSACTION_LABELS[kind] ?? kind;

/** Whether a transaction of this kind takes money out of the account. */
export const isDebit = (kind) => DEBITS.includes(kind);

/** The amount of an event in minor units, and its sign if it changes the balance; `null` for an event without an amount. */
export function amountOf({ type, data }) {
  if (type === 'AccountOpened') return data.initial_deposit > 0 ? { minor: data.initial_deposit, sign: '+' } : null;
  if (type === 'MoneyDeposited' || type === 'TransferReceived') return { minor: data.amount, sign: '+' };
  if (['MoneyWithdrawn', 'TransferSent', 'HoldCaptured'].includes(type)) return { minor: data.amount, sign: '−' };
  if (type === 'MovementReversed') return { minor: data.amount, sign: data.effect === 'credit' ? '+' : '−' };
  if (type === 'HoldPlaced' || type === 'HoldReleased') return { minor: data.amount };
  return null;
}

const LIMIT_LABELS = { overdraft: 'overdraft', per_movement: 'single movement', out_per_day: 'out per day', out_per_month: 'out per month' };

/**
 * The rest of an event as text: owner, reversed movement, limits, reference, reason or channel.
 * @param {{code: string, digits: number}} [currency] the account's, for amounts
 */
export function eventDetails({ type, data }, currency) {
  if (type === 'AccountOpened') return `for ${data.owner}, in ${data.currency}`;
  if (type === 'LimitsSet') return limitDetails(data, currency);
  const reversed = type === 'MovementReversed' && `of transaction ${data.reverses_version}`;
  const ended = type === 'HoldReleased' && data.cause;
  return [reversed, ended, data.reference ?? data.reason, data.channel && `(${data.channel})`].filter(Boolean).join(' ');
}

function limitDetails(limits, currency) {
  if (!currency) return '';
  const set = Object.keys(LIMIT_LABELS).filter((name) => limits[name] !== undefined && limits[name] !== null && !(name === 'overdraft' && limits[name] === 0));
  return set.length === 0 ? 'none' : set.map((name) => `${LIMIT_LABELS[name]} ${formatMoney(limits[name], currency)}`).join(', ');
}

/** The other account of a transfer. */
export const counterparty = ({ data }) => data.to ?? data.from;
