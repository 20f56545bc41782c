// A strict client by @hey-api/openapi-ts: opens, deposits, pages and follows the stream of events.

import { client } from './hey-api/client.gen.js';
import { createDeposit, listTransactions, openAccount, streamEvents } from './hey-api/index.js';
import type { Event, TransactionPage } from './hey-api/index.js';

const [, , baseUrl = ''] = process.argv;
client.setConfig({ baseUrl });

/** The amount that an event moved: `type` selects the type of `data`. */
function amountOf(event: Event): number {
  switch (event.type) {
    case 'AccountOpened': return event.data.initial_deposit;
    case 'MoneyDeposited': case 'MoneyWithdrawn': case 'TransferSent': case 'TransferReceived': return event.data.amount;
    case 'HoldPlaced': case 'HoldCaptured': case 'HoldReleased': case 'MovementReversed': return event.data.amount;
    case 'LimitsSet': case 'AccountFrozen': case 'AccountUnfrozen': case 'AccountClosed': return 0;
    case 'WebhookRegistered': case 'WebhookPaused': case 'WebhookResumed': case 'WebhookDeleted': return 0;
  }
}

function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

const opened = await openAccount({ body: { currency: 'EUR', initial_deposit: 100 } });
expect(opened.data !== undefined, `the account was not opened: ${opened.error?.code}`);
const { account_id } = opened.data;

let position = opened.data.position;
for (const amount of [1, 2, 3]) {
  const deposited = await createDeposit({ path: { account_id }, body: { amount }, headers: { 'Idempotency-Key': crypto.randomUUID() } });
  expect(deposited.data !== undefined, `the deposit was refused: ${deposited.error?.code}`);
  position = deposited.data.position;
}

async function pageAfter(after: string | null): Promise<TransactionPage> {
  const query = { limit: 2, min_position: position, ...(after === null ? {} : { after }) };
  const { data, error } = await listTransactions({ path: { account_id }, query });
  expect(data !== undefined, `no page: ${error?.code}`);
  return data;
}

const amounts: number[] = [];
let after: string | null = null;
do {
  const page = await pageAfter(after);
  amounts.push(...page.data.map(({ amount }) => amount));
  after = page.next;
} while (after !== null);
expect(amounts.join() === '3,2,1,100', `unexpected transactions: ${amounts.join()}`);

const stop = new AbortController();
const { stream } = await streamEvents({ signal: stop.signal });
const followed: number[] = [];
for await (const event of stream) {
  if (event.aggregate_id === account_id) followed.push(amountOf(event));
  if (followed.length === 4) break;
}
stop.abort();
expect(followed.join() === '100,1,2,3', `unexpected events: ${followed.join()}`);
process.exit(0);
