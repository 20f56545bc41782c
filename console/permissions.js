// What the scopes of the token permit, so that pages do not offer what the service would refuse. Without a token, or with one
// that cannot be read, everything is offered: the service decides.

import { access } from './api.js';

const may = (scope) => access.scopes()?.has(scope) ?? true;
const mayOn = (scope, { owner }) => may(`${scope}:any`) || (may(scope) && owner === access.subject());

export const permissions = {
  readAny: () => may('accounts:read:any'),
  open: () => may('accounts:write') || may('accounts:write:any'),
  /** Whether an account can be opened for another owner. */
  openForOthers: () => may('accounts:write:any'),
  /** Deposits, withdrawals, transfers and closing. */
  write: (account) => mayOn('accounts:write', account),
  freeze: () => may('accounts:freeze'),
  holds: () => may('accounts:holds'),
  reverse: () => may('accounts:reverse'),
  limits: () => may('accounts:limits'),
  audit: () => may('audit:read'),
  operations: () => may('operations'),
  webhooks: () => may('webhooks'),
  /** Whether any command can be sent, so that a batch makes sense. */
  batches: () => ['accounts:write', 'accounts:write:any', 'accounts:freeze', 'accounts:holds', 'accounts:reverse', 'accounts:limits'].some(may),
};
