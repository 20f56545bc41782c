// Labels and descriptions for event types and transaction kinds.

const EVENT_LABELS = {
  AccountOpened: 'Opened',
  MoneyDeposited: 'Deposit',
  MoneyWithdrawn: 'Withdrawal',
  TransferSent: 'Transfer out',
  TransferReceived: 'Transfer in',
  AccountFrozen: 'Frozen',
  AccountUnfrozen: 'Unfrozen',
  AccountClosed: 'Closed',
};

const TRANSACTION_LABELS = {
  opening_deposit: 'Opening deposit',
  deposit: 'Deposit',
  withdrawal: 'Withdrawal',
  transfer_in: 'Transfer in',
  transfer_out: 'Transfer out',
};

/** An event type without a label, such as one from a newer release, is shown by its own name. */
export const eventLabel = (type) => EVENT_LABELS[type] ?? type;
export const transactionLabel = (kind) => TRANSACTION_LABELS[kind] ?? kind;

/** Whether a transaction of this kind takes money out of the account. */
export const isDebit = (kind) => kind === 'withdrawal' || kind === 'transfer_out';

/** The amount of an event in minor units and its sign; `null` if the event changes no balance. */
export function amountOf({ type, data }) {
  if (type === 'AccountOpened') return data.initial_deposit > 0 ? { minor: data.initial_deposit, sign: '+' } : null;
  if (type === 'MoneyDeposited' || type === 'TransferReceived') return { minor: data.amount, sign: '+' };
  if (type === 'MoneyWithdrawn' || type === 'TransferSent') return { minor: data.amount, sign: '−' };
  return null;
}

/** The rest of an event as text: owner, reference, reason or channel. */
export function eventDetails({ type, data }) {
  if (type === 'AccountOpened') return `for ${data.owner}, in ${data.currency}`;
  return [data.reference ?? data.reason, data.channel && `(${data.channel})`].filter(Boolean).join(' ');
}

/** The other account of a transfer. */
export const counterparty = ({ data }) => data.to ?? data.from;
