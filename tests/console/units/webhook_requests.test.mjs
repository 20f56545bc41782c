import assert from 'node:assert/strict';
import test from 'node:test';

globalThis.sessionStorage = { getItem: () => null, setItem() {}, removeItem() {} };
const { access } = await import('../../../console/api.js');
const { UnknownOutcome, deleteWebhook, findSame, sendOnce, sendUntilAnswered } = await import('../../../console/webhook_requests.js');

const problem = (status, code) => new Response(JSON.stringify({ code, title: 'Title', detail: 'Detail' }), { status });
const lost = new TypeError('Failed to fetch');
const sleep = () => Promise.resolve();

/** Answers one request after the other; an error is a lost response. Returns the requests. */
function answer(...answers) {
  const requests = [];
  globalThis.fetch = async (path, options) => {
    requests.push({ path, ...options });
    const next = answers.shift();
    if (next instanceof Error) throw next;
    return next;
  };
  return requests;
}

/** A token of this user, which is not signed. */
const token = (subject) => `x.${btoa(JSON.stringify({ sub: subject }))}.x`;

test('a command is sent again without a key until the service answers', async () => {
  const requests = answer(lost, problem(503, 'overloaded'), new Response('{"webhook_id":"1"}'));
  let losses = 0;
  const answered = await sendUntilAnswered({ path: '/v1/webhooks', body: { url: 'https://example.com/' } }, { sleep, onLost: () => losses++ });
  assert.deepEqual([answered.webhook_id, requests.length, losses], ['1', 3, 2]);
  assert.ok(requests.every(({ headers, body }) => !('Idempotency-Key' in headers) && body === '{"url":"https://example.com/"}'));
});

test('a body that ends early is a lost response', async () => {
  const cut = (status) => new Response(new ReadableStream({ start: (stream) => stream.error(new TypeError('network error')) }), { status });
  for (const status of [201, 409]) {
    answer(cut(status));
    await assert.rejects(sendOnce({ path: '/v1/webhooks' }), UnknownOutcome);
  }
  for (const response of [problem(503, 'outcome_unknown'), new Response('bad gateway', { status: 502 })]) {
    answer(response);
    await assert.rejects(sendOnce({ path: '/v1/webhooks' }), UnknownOutcome);
  }
});

test('an existing webhook is told from one that a lost attempt registered', async () => {
  answer(problem(409, 'webhook_exists'));
  await assert.rejects(sendUntilAnswered({ path: '/v1/webhooks' }, { sleep }), ({ code, wasLost }) => code === 'webhook_exists' && !wasLost);
  answer(lost, problem(409, 'webhook_exists'));
  await assert.rejects(sendUntilAnswered({ path: '/v1/webhooks' }, { sleep }), ({ code, wasLost }) => code === 'webhook_exists' && wasLost);
});

test('a refusal before any lost response is final', async () => {
  const requests = answer(problem(503, 'storage_unavailable'));
  await assert.rejects(sendUntilAnswered({ path: '/v1/webhooks' }, { sleep }), ({ code }) => code === 'storage_unavailable');
  assert.equal(requests.length, 1);
});

test('a command is not sent again by another user, nor from a page that was left', async () => {
  access.setToken(token('ada'));
  let requests = answer(lost, new Response('{}'));
  await assert.rejects(sendUntilAnswered({ path: '/v1/webhooks' }, { sleep, onLost: () => access.setToken(token('ben')) }));
  assert.equal(requests.length, 1);
  requests = answer(lost, new Response('{}'));
  let isLeft = false;
  await assert.rejects(sendUntilAnswered({ path: '/v1/webhooks' }, { sleep, onLost: () => (isLeft = true), isAbandoned: () => isLeft }));
  assert.equal(requests.length, 1);
});

test('a webhook that is gone counts as deleted', async () => {
  const requests = answer(lost, problem(404, 'not_found'));
  await deleteWebhook('1', { sleep });
  assert.deepEqual(requests.map(({ path, method }) => `${method} ${path}`), ['DELETE /v1/webhooks/1', 'DELETE /v1/webhooks/1']);
  answer(problem(403, 'forbidden'));
  await assert.rejects(deleteWebhook('1', { sleep }), ({ status }) => status === 403);
});

test('the webhook with the same URL and filters is found', () => {
  const listed = (id, members) => ({ webhook_id: id, url: 'https://example.com/', types: [], account_id: null, owner: null, ...members });
  const all = [listed(1, { owner: 'ada' }), listed(2), listed(3, { types: ['MoneyDeposited', 'AccountOpened'] })];
  assert.equal(findSame(all, { url: 'HTTPS://EXAMPLE.com' }).webhook_id, 2);
  assert.equal(findSame(all, { url: 'https://example.com', types: ['AccountOpened', 'MoneyDeposited'] }).webhook_id, 3);
  assert.equal(findSame(all, { url: 'https://example.com', owner: 'ada', after: '0' }).webhook_id, 1);
  assert.equal(findSame(all, { url: 'https://example.com/other' }), undefined);
});
