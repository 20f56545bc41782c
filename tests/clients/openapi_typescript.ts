// A strict client by openapi-typescript and openapi-fetch: opens, deposits, pages and follows the feed.

import createClient from 'openapi-fetch';
import type { components, paths } from './schema.js';

type Event = components['schemas']['Event'];

const [, , baseUrl = ''] = process.argv;
const client = createClient<paths>({ baseUrl });

/** The amount that an event moved: `type` selects the type of `data`. */
function amountOf(event: Event): number {
  switch (event.type) {
    case 'AccountOpened': return event.data.initial_deposit;
    case 'MoneyDeposited': case 'MoneyWithdrawn': return event.data.amount;
    case 'TransferSent': return event.data.to === '' ? 0 : event.data.amount;
    case 'TransferReceived': return event.data.from === '' ? 0 : event.data.amount;
    case 'HoldPlaced': case 'HoldCaptured': case 'HoldReleased': case 'MovementReversed': return event.data.amount;
    case 'LimitsSet': case 'AccountFrozen': case 'AccountUnfrozen': case 'AccountClosed': return 0;
    case 'WebhookRegistered': case 'WebhookPaused': case 'WebhookResumed': case 'WebhookDeleted': return 0;
  }
}

function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

const opened = await client.POST('/v1/accounts', {
  params: { header: { 'Idempotency-Key': crypto.randomUUID() } }, body: { currency: 'EUR', initial_deposit: 100 },
});
expect(opened.data !== undefined, `the account was not opened: ${opened.error?.code}`);
const { account_id } = opened.data;

let position = opened.data.position;
for (const amount of [1, 2, 3]) {
  const deposited = await client.POST('/v1/accounts/{account_id}/deposits', { params: { path: { account_id } }, body: { amount } });
  expect(deposited.data !== undefined, `the deposit was refused: ${deposited.error?.code}`);
  position = deposited.data.position;
}

const refused = await client.POST('/v1/accounts/{account_id}/withdrawals', { params: { path: { account_id } }, body: { amount: 1_000 } });
expect(refused.error?.code === 'insufficient_funds' && refused.error.account_id === account_id, 'the withdrawal was not refused');

const amounts: number[] = [];
let after: string | undefined;
do {
  const page = await client.GET('/v1/accounts/{account_id}/transactions', {
    params: { path: { account_id }, query: { limit: 2, min_position: position, ...(after === undefined ? {} : { after }) } },
  });
  expect(page.data !== undefined, `no page: ${page.error?.code}`);
  amounts.push(...page.data.data.map(({ amount }) => amount));
  after = page.data.next ?? undefined;
} while (after !== undefined);
expect(amounts.join() === '3,2,1,100', `unexpected transactions: ${amounts.join()}`);

const followed: number[] = [];
let cursor: string | undefined;
while (followed.length < 4) {
  const page = await client.GET('/v1/events', { params: { query: { limit: 3, ...(cursor === undefined ? {} : { after: cursor }) } } });
  expect(page.data !== undefined, `no events: ${page.error?.code}`);
  followed.push(...page.data.data.filter(({ aggregate_id }) => aggregate_id === account_id).map(amountOf));
  cursor = page.data.next;
}
expect(followed.join() === '100,1,2,3', `unexpected events: ${followed.join()}`);
