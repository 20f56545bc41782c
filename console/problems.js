// The texts of errors for people, by the code of the API's problem document. Amounts are written in major units. The API's own
// title and detail are for developers: they are shown only for a code that this list does not have.

import { MINOR_UNITS_MAX, formatMoney } from './money.js';

const LIMIT_LABELS = { per_movement: 'limit for a single movement', out_per_day: 'daily limit', out_per_month: 'monthly limit', overdraft: 'overdraft' };

/**
 * @typedef {object} Context what the page knows about the command that was refused
 * @property {{code: string, digits: number}} [currency] the currency of the amounts in the error
 * @property {string} [ownLabel] how to name the account of the command at the start of a sentence
 * @property {string[]} [keepDetailOf] codes whose own detail says more than the text by code
 * @property {string} [otherAccountId] the other account of a transfer; errors of this account say so
 * @property {string} [otherLabel] how to name that account at the start of a sentence
 */

/**
 * One or two sentences for an error: what happened, and what the user can do.
 * @param {Error & {code?: string, status?: number, title?: string}} error
 * @param {Context} [context]
 */
export function describe(error, context = {}) {
  const text = !context.keepDetailOf?.includes(error.code) && TEXTS[error.code]?.(error, helpers(error, context));
  if (text) return text;
  if (!error.code && !error.title && !error.status) return 'The service is not responding.';
  return [error.title && `${error.title}:`, toSentence(error.message)].filter(Boolean).join(' ');
}

export const toSentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.') : '');

function helpers(error, { currency, ownLabel = 'This account', otherAccountId, otherLabel = 'The other account' }) {
  const isOther = otherAccountId !== undefined && error.accountId === otherAccountId;
  return {
    isOther,
    /** The account that refused. */
    account: isOther ? otherLabel : ownLabel,
    money: (minor) => (currency && minor !== undefined && minor !== null ? formatMoney(minor, currency) : undefined),
  };
}

/** Texts by code. A text of `undefined` falls back to the texts of the API. */
const TEXTS = {
  unauthenticated: ({ message }) => toSentence(message),
  forbidden: ({ scope, message }) => (scope ? `You do not have permission for this. The token lacks the scope ${scope}.` : toSentence(message)),
  invalid_amount: () => 'This amount is not valid.',
  invalid_currency: () => 'Accounts cannot be opened in this currency.',
  invalid_parameter: ({ fields, message }) => toSentence(fields[0]?.detail ?? message),
  malformed_request: ({ message }) => `The service could not read the request. ${toSentence(message)}`,
  same_account: () => 'Choose another account: money cannot be transferred to the account that it comes from.',
  account_not_found: () => 'There is no account with this ID, or you may not see it.',
  hold_not_found: () => 'This account never had a hold with this ID.',
  transaction_not_found: () => 'This account has no transaction with this version.',
  version_not_found: () => 'This account does not have so many versions.',
  account_exists: () => 'There is already an account with this ID.',
  webhook_exists: () => 'There is already a webhook with this URL and these filters. Its secret was shown once; a new one can be made on its page.',
  rebuild_running: () => 'A rebuild of this view is already running.',
  version_mismatch: () => 'The account has changed since this page showed it. Check its current state, and send the form again.',
  account_closed: (_, { account }) => `${account} is closed permanently.`,
  account_frozen: (_, { account }) => `${account} is frozen. Someone with permission must unfreeze it first.`,
  account_not_frozen: () => 'The account is not frozen.',
  insufficient_funds: ({ balance, available = balance }, { account, money }) => {
    if (money(available) === undefined) return `${account} does not have enough money for this.`;
    const whole = available === balance ? '' : `, and the balance is ${money(balance)}`;
    return `${account} does not have enough money: ${money(available)} is available${whole}.`;
  },
  balance_not_zero: ({ balance }, { money }) => {
    const figure = money(balance);
    return `Only an account with a zero balance can be closed. ${figure ? `This account holds ${figure}.` : ''}`.trim();
  },
  currency_mismatch: (_, { account, isOther }) => `${account} is in another currency.${isOther ? ' Both accounts of a transfer must have the same currency.' : ''}`,
  balance_limit_exceeded: (_, { account, isOther, money }) =>
    `${account} cannot ${isOther ? 'receive' : 'hold'} so much${money(MINOR_UNITS_MAX) ? `: the largest possible balance is ${money(MINOR_UNITS_MAX)}` : ''}.`,
  limit_exceeded: ({ limit, maximum, used, resetsAt }, { account, money }) => {
    // The limit of the service itself, such as the number of webhooks, has no name.
    if (limit === undefined) return undefined;
    const label = LIMIT_LABELS[limit] ?? limit;
    if (money(maximum) === undefined) return `This exceeds a limit of the account (${label}).`;
    const left = used ? `: ${money(used)} is used and ${money(Math.max(0, maximum - used))} is left` : '';
    const until = resetsAt ? ` until ${new Date(resetsAt).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })}` : '';
    return `${account} has a ${label} of ${money(maximum)}${left}${used ? until : ''}.`;
  },
  holds_active: () => 'The account has active holds. Capture or void them before you close it.',
  hold_not_active: () => 'This hold was captured, voided or has expired.',
  exceeds_hold: ({ remaining }, { money }) => `The hold does not cover this amount.${money(remaining) ? ` It has ${money(remaining)} left.` : ''}`,
  too_many_holds: () => 'The account has the largest possible number of active holds. Capture or void one first.',
  not_reversible: () => 'A reversal cannot be reversed.',
  already_reversed: () => 'This transaction is already fully reversed.',
  exceeds_reversible: ({ reversible }, { money }) => `This is more than what can still be reversed.${money(reversible) ? ` ${money(reversible)} is left.` : ''}`,
  idempotency_key_reused: () => 'This command was already sent with other content. Reload the page, and check the account.',
  payload_too_large: () => 'This is too much for one request. Divide it into several.',
  request_timeout: () => 'The request took too long to arrive, and nothing was done. Try again.',
  rate_limited: () => 'There were too many requests, and nothing was done. Try again in a moment.',
  overloaded: () => 'The service has too much work, and nothing was done. Try again in a moment.',
  storage_unavailable: () => 'The service cannot reach its database, and nothing was done. Try again in a moment.',
  clock_skewed: () => 'The clock of the service is wrong, and nothing was done. Report this to an operator.',
  projection_behind: () => 'The figures are not up to date yet. Try again in a moment.',
  internal_error: ({ requestId }) => `The service failed. Report this to an operator${requestId ? ` with the request ID ${requestId}` : ''}.`,
};
