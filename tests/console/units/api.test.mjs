import assert from 'node:assert/strict';
import test from 'node:test';
import { OriginalCallerRequired, createOutbox } from '../../../console/outbox.js';

const stored = new Map();
const storage = {
  getItem: (name) => stored.get(name) ?? null,
  setItem: (name, value) => stored.set(name, value),
  removeItem: (name) => stored.delete(name),
};
globalThis.sessionStorage = storage;
const { access, read, recordWrite, request, toApiError } = await import('../../../console/api.js');

const tokenOf = (sub) => `x.${Buffer.from(JSON.stringify({ sub })).toString('base64url')}.x`;
const respond = (status, code) => new Response(JSON.stringify({ code, position: '7' }), { status });
const promptOpened = () => new Promise((resolve) => access.onChange(() => access.promptReason !== undefined && resolve()));

/** A fake service that returns the given responses in order. Returns the list of Authorization headers that it receives. */
function fakeService(...responses) {
  const tokens = [];
  globalThis.fetch = async (path, { headers, signal }) => {
    signal.throwIfAborted();
    tokens.push(headers.Authorization);
    const next = responses.shift();
    if (next === 'lost') throw new TypeError('no response');
    return respond(...next);
  };
  return tokens;
}

function sendCommand() {
  const outbox = createOutbox({ request, toApiError, subject: access.subject, storage, sleep: async () => {} });
  return { outbox, outcome: outbox.send({ path: '/p', body: {}, label: 'Deposit 5' }) };
}

test('a command with a lost response is not resent with the token of another caller', async () => {
  access.setToken(tokenOf('alice'));
  const tokens = fakeService('lost', [401, 'unauthenticated'], [201]);
  const prompt = promptOpened();
  const { outbox, outcome } = sendCommand();
  const rejected = assert.rejects(outcome, (error) => error instanceof OriginalCallerRequired && error.message.includes('only alice'));
  await prompt;
  access.setToken(tokenOf('bob'));
  await rejected;
  assert.deepEqual(tokens, Array(2).fill(`Bearer ${tokenOf('alice')}`));
  access.setToken(tokenOf('alice'));
  await outbox.retry(outbox.pending()[0].key).outcome;
  assert.equal(tokens.length, 3);
});

test('a command that is sent with a new token belongs to the caller of that token', async () => {
  access.setToken(tokenOf('alice'));
  const tokens = fakeService([401, 'unauthenticated'], 'lost', [201]);
  const prompt = promptOpened();
  const { outcome } = sendCommand();
  await prompt;
  access.setToken(tokenOf('bob'));
  await outcome;
  assert.deepEqual(tokens.slice(1), Array(2).fill(`Bearer ${tokenOf('bob')}`));
});

test('the timeout does not run while the token prompt is open', async () => {
  access.setToken(tokenOf('alice'));
  fakeService([401, 'unauthenticated'], [200]);
  const prompt = promptOpened();
  const response = request('/p', { timeoutMs: 20 });
  await prompt;
  await new Promise((resolve) => setTimeout(resolve, 60));
  access.setToken(tokenOf('alice'));
  assert.equal((await response).status, 200);
});

test('reads include the writes of this tab, until the log no longer contains them', async () => {
  let head = 9;
  let paths = [];
  globalThis.fetch = async (path) => {
    paths.push(path);
    if (path === '/v1/log/head') return new Response(JSON.stringify({ data: [{ partition: 0, position: `${head}` }] }));
    return path.includes('min_position') ? respond(503, 'projection_behind') : respond(200);
  };
  recordWrite('9');
  await assert.rejects(read('/p'), { code: 'projection_behind' });
  await assert.rejects(read('/p'), { code: 'projection_behind' });
  assert.equal(paths[0], '/p?min_position=9');
  // The log is shorter, as after a restore.
  head = 8;
  await assert.rejects(read('/p'), { code: 'projection_behind' });
  paths = [];
  await read('/p');
  assert.deepEqual(paths, ['/p']);
});
