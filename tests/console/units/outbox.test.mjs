import assert from 'node:assert/strict';
import test from 'node:test';
import { LATE_EXECUTION_MS_MAX, OriginalCallerRequired, createOutbox } from '../../../console/outbox.js';

/** An outbox with a fake service that returns the given responses in order and records the requests. */
function setUp(responses) {
  const sent = [];
  let time = 0;
  const stored = new Map();
  const setup = {
    sent,
    subject: 'clerk',
    stored,
    elapsedMs: () => time,
    dependencies: {
      request: async (path, options) => {
        options.onSend();
        sent.push({ path, method: options.method, key: options.headers['Idempotency-Key'], ifMatch: options.headers['If-Match'], body: options.body });
        const response = responses.length > 1 ? responses.shift() : responses[0];
        if (response === 'lost') throw new TypeError('no response');
        if (response === 'lost, other caller') {
          setup.subject = 'other';
          throw new TypeError('no response');
        }
        const [status, code, results] = response;
        return { ok: status < 300, status, json: async () => ({ position: '7', ...(results && { results }) }), headers: { get: () => null }, code };
      },
      toApiError: async ({ status, code }) => Object.assign(new Error(code), { status, code, retryAfterS: 1 }),
      subject: () => setup.subject,
      storage: { getItem: (name) => stored.get(name) ?? null, setItem: (name, value) => stored.set(name, value) },
      now: () => time,
      sleep: async (ms) => void (time += ms),
      newKey: () => `key-${(setup.keys = (setup.keys ?? 0) + 1)}`,
    },
  };
  setup.outbox = createOutbox(setup.dependencies);
  setup.send = () => setup.outbox.send({ path: '/p', body: { amount: 5 }, ifMatch: '"3"', label: 'Deposit 5' });
  return setup;
}

const assertIdentical = (sent) => assert.ok(sent.every((each) => JSON.stringify(each) === JSON.stringify(sent[0])), JSON.stringify(sent));

test('each command has its own key and is sent once if it is answered', async () => {
  const { outbox, send, sent } = setUp([[201]]);
  await send();
  await send();
  assert.deepEqual(sent.map(({ key }) => key), ['key-1', 'key-2']);
  assert.deepEqual(outbox.pending(), []);
});

test('a command without a response is resent unchanged until it has one', async () => {
  const { send, sent } = setUp(['lost', [503, 'outcome_unknown'], [502], 'lost', [201]]);
  assert.equal((await send()).receipt.position, '7');
  assert.equal(sent.length, 5);
  assertIdentical(sent);
});

test('an error is final if no response was lost before', async () => {
  const { send, sent } = setUp([[422, 'insufficient_funds']]);
  await assert.rejects(send(), { code: 'insufficient_funds' });
  assert.equal(sent.length, 1);
});

test('an error is not final while an earlier attempt may still be executed', async () => {
  const accepted = setUp(['lost', [412, 'version_mismatch'], [201]]);
  assert.equal((await accepted.send()).receipt.position, '7');
  assertIdentical(accepted.sent);
  const rejected = setUp(['lost', [422, 'insufficient_funds']]);
  await assert.rejects(rejected.send(), { code: 'insufficient_funds' });
  assert.ok(rejected.elapsedMs() > LATE_EXECUTION_MS_MAX);
  assertIdentical(rejected.sent);
});

test('the last error is final after repeated responses that nothing was executed', async () => {
  const { send, sent } = setUp([[503, 'overloaded']]);
  await assert.rejects(send(), { code: 'overloaded' });
  assert.equal(sent.length, 5);
});

test('a command is not resent by another caller, and completes when its caller returns', async () => {
  const first = setUp(['lost, other caller', [201]]);
  await assert.rejects(first.send(), (error) => error instanceof OriginalCallerRequired && error.message.includes('only clerk can check the result'));
  assert.equal(first.sent.length, 1);
  const [{ key, needsOriginalCaller }] = JSON.parse(first.stored.get('passbook.outbox'));
  assert.ok(needsOriginalCaller);
  await assert.rejects(first.outbox.retry(key).outcome, (error) => error instanceof OriginalCallerRequired);
  assert.equal(first.sent.length, 1);

  const next = setUp([[201]]);
  next.stored.set('passbook.outbox', first.stored.get('passbook.outbox'));
  assert.deepEqual(next.outbox.resume(), [], 'a command that needs its original caller is not resent by itself');
  await next.outbox.retry(key).outcome;
  assertIdentical([...first.sent, ...next.sent]);
  assert.deepEqual(next.outbox.pending(), []);
});

for (const [status, code] of [[401, 'unauthenticated'], [403, 'forbidden']]) {
  test(`${status} is final for a command that was not sent before, and not for one that was`, async () => {
    const first = setUp([[status, code]]);
    await assert.rejects(first.send(), { status });
    assert.deepEqual(first.outbox.pending(), []);
    const later = setUp(['lost', [status, code]]);
    await assert.rejects(later.send(), (error) => error instanceof OriginalCallerRequired);
    assert.deepEqual(later.outbox.pending().map(({ key }) => key), ['key-1']);
    later.outbox.discard('key-1');
    assert.equal(later.stored.get('passbook.outbox'), '[]');
  });
}

test('a pending command is stored, and resumed with the same key after a reload', async () => {
  const first = setUp(['lost']);
  let slept;
  first.dependencies.sleep = () => new Promise(() => slept?.());
  const outbox = createOutbox(first.dependencies);
  const done = new Promise((resolve) => (slept = resolve));
  outbox.send({ path: '/p', body: { amount: 5 }, label: 'Deposit 5' });
  await done;
  const second = setUp([[201]]);
  second.stored.set('passbook.outbox', first.stored.get('passbook.outbox'));
  const [{ command, outcome }] = second.outbox.resume();
  assert.equal(command.label, 'Deposit 5');
  await outcome;
  assertIdentical([...first.sent, ...second.sent]);
  assert.equal(second.stored.get('passbook.outbox'), '[]');
});

test('a batch with item keys has no key of its own and is resent until no item failed', async () => {
  const { outbox, sent } = setUp([[200, undefined, [{ status: 201 }, { status: 503 }]], [200, undefined, [{ status: 201, replayed: true }, { status: 422 }]]]);
  const body = { mode: 'each', commands: [{ idempotency_key: 'a' }, { idempotency_key: 'b' }] };
  const { receipt } = await outbox.send({ path: '/v1/batches', body, hasItemKeys: true, label: 'Batch' });
  assert.equal(receipt.results[1].status, 422);
  assert.equal(sent.length, 2);
  assert.equal(sent[0].key, undefined);
  assertIdentical(sent);
});

test('a command can replace something', async () => {
  const { outbox, sent } = setUp(['lost', [200]]);
  await outbox.send({ method: 'PUT', path: '/limits', body: {}, label: 'Change limits' });
  assert.deepEqual(sent.map(({ method }) => method), ['PUT', 'PUT']);
});
