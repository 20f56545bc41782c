import assert from 'node:assert/strict';
import test from 'node:test';
import { LOST_MS_MAX, Stranded, outbox } from '../../../console/outbox.js';

/** A bank that answers as it is told, and remembers what it was sent. */
function world(answers) {
  const sent = [];
  let time = 0;
  const kept = new Map();
  const made = {
    sent,
    subject: 'clerk',
    kept,
    passed: () => time,
    parts: {
      request: async (path, options) => {
        options.onSend();
        sent.push({ path, key: options.headers['Idempotency-Key'], ifMatch: options.headers['If-Match'], body: options.body });
        const answer = answers.length > 1 ? answers.shift() : answers[0];
        if (answer === 'lost') throw new TypeError('no answer');
        if (answer === 'another') made.subject = 'somebody else';
        if (answer === 'another') throw new TypeError('no answer');
        const [status, code] = answer;
        return { ok: status < 300, status, json: async () => ({ position: '7' }), headers: { get: () => null }, code };
      },
      refusalOf: async ({ status, code }) => Object.assign(new Error(code), { status, code, retryAfterS: 1 }),
      subject: () => made.subject,
      storage: { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value) },
      now: () => time,
      sleep: async (ms) => void (time += ms),
      newKey: (() => (n) => `key-${(made.keys = (made.keys ?? 0) + 1)}`)(),
    },
  };
  made.box = outbox(made.parts);
  made.send = () => made.box.send({ path: '/p', body: { amount: 5 }, ifMatch: '"3"', says: 'Deposit 5' });
  return made;
}

const allAlike = (sent) => assert.ok(sent.every((each) => JSON.stringify(each) === JSON.stringify(sent[0])), JSON.stringify(sent));

test('each command has a key of its own and is sent once where it is answered', async () => {
  const { box, send, sent } = world([[201]]);
  await send();
  await send();
  assert.deepEqual(sent.map(({ key }) => key), ['key-1', 'key-2']);
  assert.deepEqual(box.waiting(), []);
});

test('what has no answer is sent again word for word until it has one', async () => {
  const { send, sent } = world(['lost', [503, 'outcome_unknown'], [502], 'lost', [201]]);
  assert.equal((await send()).receipt.position, '7');
  assert.equal(sent.length, 5);
  allAlike(sent);
});

test('a refusal is the last word where nothing was lost before', async () => {
  const { send, sent } = world([[422, 'insufficient_funds']]);
  await assert.rejects(send(), { code: 'insufficient_funds' });
  assert.equal(sent.length, 1);
});

test('a refusal is not believed while an earlier attempt may still be carried out', async () => {
  const late = world(['lost', [412, 'version_mismatch'], [201]]);
  assert.equal((await late.send()).receipt.position, '7');
  allAlike(late.sent);
  const never = world(['lost', [422, 'insufficient_funds']]);
  await assert.rejects(never.send(), { code: 'insufficient_funds' });
  assert.ok(never.passed() > LOST_MS_MAX);
  allAlike(never.sent);
});

test('of a service that does nothing the last word counts in the end', async () => {
  const { send, sent } = world([[503, 'overloaded']]);
  await assert.rejects(send(), { code: 'overloaded' });
  assert.equal(sent.length, 5);
});

test('whoever comes later does not send what somebody else has sent, who is answered when they are back', async () => {
  const bank = world(['another', [201]]);
  await assert.rejects(bank.send(), (error) => error instanceof Stranded && error.message.includes('only clerk can ask again'));
  assert.equal(bank.sent.length, 1);
  const [{ key, isStranded }] = JSON.parse(bank.kept.get('passbook.outbox'));
  assert.ok(isStranded);
  await assert.rejects(bank.box.again(key).outcome, (error) => error instanceof Stranded);
  assert.equal(bank.sent.length, 1);

  const next = world([[201]]);
  next.kept.set('passbook.outbox', bank.kept.get('passbook.outbox'));
  assert.deepEqual(next.box.resume(), [], 'nothing stranded is sent unasked');
  await next.box.again(key).outcome;
  allAlike([...bank.sent, ...next.sent]);
  assert.deepEqual(next.box.waiting(), []);
});

for (const [status, code] of [[401, 'unauthenticated'], [403, 'forbidden']]) {
  test(`${status} is the last word on what was not sent before, and none on what was`, async () => {
    const first = world([[status, code]]);
    await assert.rejects(first.send(), { status });
    assert.deepEqual(first.box.waiting(), []);
    const later = world(['lost', [status, code]]);
    await assert.rejects(later.send(), (error) => error instanceof Stranded);
    assert.deepEqual(later.box.waiting().map(({ key }) => key), ['key-1']);
    later.box.drop('key-1');
    assert.equal(later.kept.get('passbook.outbox'), '[]');
  });
}

test('what was on its way is kept, and goes on under the same key in another life', async () => {
  const first = world(['lost']);
  let ended;
  first.parts.sleep = () => new Promise(() => ended?.());
  const box = outbox(first.parts);
  const done = new Promise((resolve) => (ended = resolve));
  box.send({ path: '/p', body: { amount: 5 }, says: 'Deposit 5' });
  await done;
  const second = world([[201]]);
  second.kept.set('passbook.outbox', first.kept.get('passbook.outbox'));
  const [{ command, outcome }] = second.box.resume();
  assert.equal(command.says, 'Deposit 5');
  await outcome;
  allAlike([...first.sent, ...second.sent]);
  assert.equal(second.kept.get('passbook.outbox'), '[]');
});
