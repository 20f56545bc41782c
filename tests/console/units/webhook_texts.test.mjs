import assert from 'node:assert/strict';
import test from 'node:test';
import { explanation, reasonOf, replayEffect, resultOf, stateOf } from '../../../console/webhook_texts.js';

const webhook = (members) => ({ state: 'active', failing_since: null, last_status: 200, last_error: null, ...members });
const SINCE = '2026-12-01T10:00:00.000000Z';
const explain = (members) => explanation(webhook(members), (at) => at.slice(0, 16));

test('an active webhook whose event fails is retrying, and says until when', () => {
  assert.equal(stateOf(webhook()), 'active');
  assert.equal(stateOf(webhook({ failing_since: SINCE })), 'retrying');
  assert.equal(stateOf(webhook({ state: 'failing', failing_since: SINCE })), 'failing');
  const text = explain({ failing_since: SINCE, last_status: 500, last_error: 'the endpoint answered 500' });
  assert.match(text, /^Since 2026-12-01T10:00 .* fault of its own \(status 500\)\. .* until 2026-12-04T10:00/);
});

test('every state is explained with the next step', () => {
  assert.match(explain({}), /^Events are sent/);
  assert.match(explain({ last_error: 'the endpoint answered 404', last_status: 404 }), /^The last attempt failed\. There is nothing at this URL/);
  assert.match(explain({ state: 'paused' }), /until you resume it/);
  assert.match(explain({ state: 'paused', last_status: 410, last_error: 'the endpoint answered 410' }), /is gone \(status 410\)/);
  assert.match(explain({ state: 'failing', failing_since: SINCE, last_status: null, last_error: 'no response within 15s' }), /stopped sending.*did not answer within 15 s\..* and resume/);
  const history = 'the log has another history: it does not contain the event at position 7 that was read last';
  assert.match(explain({ state: 'failing', last_error: history }), /after a restore .* Replay .* then resume/);
  assert.equal(explain({ state: 'of_a_later_release' }), '');
});

test('results are sentences with the status', () => {
  assert.equal(resultOf({ status: 204, error: null }), 'Accepted (status 204).');
  assert.equal(reasonOf(302, 'x'), 'The endpoint redirects to another URL, and redirects are not followed. Register that URL instead (status 302).');
  assert.equal(reasonOf(401, 'x').endsWith('of this webhook (status 401).'), true);
  assert.equal(reasonOf(418, 'x'), 'The endpoint refuses the request (status 418).');
  assert.equal(reasonOf(null, 'the connection failed: Connection refused'), 'There was no response: the connection failed: Connection refused.');
});

test('a replay says how many events come again or are skipped', () => {
  assert.deepEqual(replayEffect('0', '42'), { again: 42n });
  assert.deepEqual(replayEffect(' 40-0a1b2c3d ', '42'), { again: 2n });
  assert.deepEqual(replayEffect('50', '42'), { skipped: 8n });
  assert.deepEqual(replayEffect('0', '0:42,1:7'), { again: 49n });
  for (const [after, position] of [['', '42'], ['x', '42'], ['1', '0:42,1:7']]) assert.equal(replayEffect(after, position), undefined);
});
