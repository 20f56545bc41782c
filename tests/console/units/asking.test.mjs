import assert from 'node:assert/strict';
import test from 'node:test';
import { Stranded, outbox } from '../../../console/outbox.js';

const kept = new Map();
const storage = {
  getItem: (name) => kept.get(name) ?? null,
  setItem: (name, value) => kept.set(name, value),
  removeItem: (name) => kept.delete(name),
};
globalThis.sessionStorage = storage;
const { access, read, refusalOf, request, wrote } = await import('../../../console/api.js');

const tokenOf = (sub) => `x.${Buffer.from(JSON.stringify({ sub })).toString('base64url')}.x`;
const answer = (status, code) => new Response(JSON.stringify({ code, position: '7' }), { status });
const asked = () => new Promise((resolve) => access.onChange(() => access.question !== undefined && resolve()));

/** A service that answers one after the other, and remembers who asked. */
function service(...answers) {
  const heard = [];
  globalThis.fetch = async (path, { headers, signal }) => {
    signal.throwIfAborted();
    heard.push(headers.Authorization);
    const next = answers.shift();
    if (next === 'lost') throw new TypeError('no answer');
    return answer(...next);
  };
  return heard;
}

function command() {
  const box = outbox({ request, refusalOf, subject: access.subject, storage, sleep: async () => {} });
  return { box, outcome: box.send({ path: '/p', body: {}, says: 'Deposit 5' }) };
}

test('a token of somebody else that is given while an answer is lost sends nothing under their name', async () => {
  access.give(tokenOf('alice'));
  const heard = service('lost', [401, 'unauthenticated'], [201]);
  const question = asked();
  const { box, outcome } = command();
  const stranded = assert.rejects(outcome, (error) => error instanceof Stranded && error.message.includes('only alice'));
  await question;
  access.give(tokenOf('bob'));
  await stranded;
  assert.deepEqual(heard, Array(2).fill(`Bearer ${tokenOf('alice')}`));
  access.give(tokenOf('alice'));
  await box.again(box.waiting()[0].key).outcome;
  assert.equal(heard.length, 3);
});

test('what was sent under a new token is of whoever that names', async () => {
  access.give(tokenOf('alice'));
  const heard = service([401, 'unauthenticated'], 'lost', [201]);
  const question = asked();
  const { outcome } = command();
  await question;
  access.give(tokenOf('bob'));
  await outcome;
  assert.deepEqual(heard.slice(1), Array(2).fill(`Bearer ${tokenOf('bob')}`));
});

test('nobody is hurried who looks for a token', async () => {
  access.give(tokenOf('alice'));
  service([401, 'unauthenticated'], [200]);
  const question = asked();
  const answered = request('/p', { timeoutMs: 20 });
  await question;
  await new Promise((resolve) => setTimeout(resolve, 60));
  access.give(tokenOf('alice'));
  assert.equal((await answered).status, 200);
});

test('what is read is as new as what was written, for as long as the log still holds that', async () => {
  let head = 9;
  let asked = [];
  globalThis.fetch = async (path) => {
    asked.push(path);
    if (path === '/v1/log/head') return new Response(JSON.stringify({ data: [{ partition: 0, position: head }] }));
    return path.includes('min_position') ? answer(503, 'projection_behind') : answer(200);
  };
  wrote('9');
  await assert.rejects(read('/p'), { code: 'projection_behind' });
  await assert.rejects(read('/p'), { code: 'projection_behind' });
  assert.equal(asked[0], '/p?min_position=9');
  // As after a restore of its database.
  head = 8;
  await assert.rejects(read('/p'), { code: 'projection_behind' });
  asked = [];
  await read('/p');
  assert.deepEqual(asked, ['/p']);
});
