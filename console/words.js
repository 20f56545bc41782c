// Events in a teller's words.

const WORDS = {
  AccountOpened: 'Opened',
  MoneyDeposited: 'Deposit',
  MoneyWithdrawn: 'Withdrawal',
  TransferSent: 'Transfer out',
  TransferReceived: 'Transfer in',
  AccountFrozen: 'Frozen',
  AccountUnfrozen: 'Unfrozen',
  AccountClosed: 'Closed',
};

const KINDS = {
  opening_deposit: 'Opening deposit',
  deposit: 'Deposit',
  withdrawal: 'Withdrawal',
  transfer_in: 'Transfer in',
  transfer_out: 'Transfer out',
};

/** A type that a newer release records keeps its own name. */
export const word = (type) => WORDS[type] ?? type;
export const kindWord = (kind) => KINDS[kind] ?? kind;

/** Whether the money of a transaction went out. */
export const isOut = (kind) => kind === 'withdrawal' || kind === 'transfer_out';

/** What an event moved: minor units and their sign; nothing where it moved none. */
export function moved({ type, data }) {
  if (type === 'AccountOpened') return data.initial_deposit > 0 ? { minor: data.initial_deposit, sign: '+' } : null;
  if (type === 'MoneyDeposited' || type === 'TransferReceived') return { minor: data.amount, sign: '+' };
  if (type === 'MoneyWithdrawn' || type === 'TransferSent') return { minor: data.amount, sign: '−' };
  return null;
}

/** What else it says. */
export function detail({ type, data }) {
  if (type === 'AccountOpened') return `for ${data.owner}, in ${data.currency}`;
  return [data.reference ?? data.reason, data.channel && `(${data.channel})`].filter(Boolean).join(' ');
}

/** The other account of a transfer. */
export const counterparty = ({ data }) => data.to ?? data.from;
