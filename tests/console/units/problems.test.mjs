import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';

globalThis.sessionStorage = { getItem: () => null, setItem() {}, removeItem() {} };
const { ApiError } = await import('../../../console/api.js');
const { describe } = await import('../../../console/problems.js');

const EUR = { code: 'EUR', digits: 2 };
const ONE = '01900000-0000-7000-8000-0000000000aa';
const OTHER = '01900000-0000-7000-8000-0000000000bb';
const problem = (status, members) => new ApiError(status, { title: 'Title', detail: 'Raw detail 983647', ...members });

test('every code of the API that a user can cause has a text without raw amounts', () => {
  const document = JSON.parse(readFileSync(new URL('../../../openapi/openapi.json', import.meta.url)));
  // These concern programs, or say with their own detail what is wrong.
  const technical = ['malformed_request', 'invalid_parameter', 'invalid_idempotency_key', 'unauthenticated', 'forbidden', 'not_found', 'method_not_allowed', 'not_acceptable', 'unsupported_media_type', 'outcome_unknown'];
  const amounts = { balance: 983647, available: 983647, maximum: 983647, used: 983647, remaining: 983647, reversible: 983647, limit: 'out_per_day', account_id: ONE };
  for (const code of document.components.schemas.ErrorCode.enum.filter((each) => !technical.includes(each))) {
    for (const context of [{}, { currency: EUR }]) {
      const text = describe(problem(422, { code, ...amounts }), context);
      assert.ok(!text.includes('983647') && !text.includes('Title') && !text.includes('undefined'), `${code}: ${text}`);
    }
  }
});

test('amounts are in major units of the currency', () => {
  const error = problem(422, { code: 'insufficient_funds', balance: 983647, available: 900000 });
  assert.equal(describe(error, { currency: EUR }), 'This account does not have enough money: €9,000.00 is available, and the balance is €9,836.47.');
  assert.match(describe(error, { currency: { code: 'JPY', digits: 0 } }), /¥900,000 is available/);
  const limit = problem(422, { code: 'limit_exceeded', limit: 'out_per_day', maximum: 50000, used: 42000, resets_at: '2026-12-01T00:00:00.000000Z' });
  assert.match(describe(limit, { currency: EUR }), /daily limit of €500\.00: €420\.00 is used and €80\.00 is left until .*2026/);
});

test('a refused transfer says whose account refused', () => {
  const context = { currency: EUR, otherAccountId: OTHER, otherLabel: 'The recipient’s account' };
  assert.match(describe(problem(422, { code: 'account_frozen', account_id: OTHER }), context), /^The recipient’s account is frozen/);
  assert.match(describe(problem(422, { code: 'account_frozen', account_id: ONE }), context), /^This account is frozen/);
  assert.match(describe(problem(422, { code: 'balance_limit_exceeded', account_id: OTHER }), context), /^The recipient’s account cannot receive so much/);
});

test('an unknown code keeps the texts of the API, and a lost response has its own', () => {
  assert.equal(describe(problem(422, { code: 'from_a_later_release' })), 'Title: Raw detail 983647.');
  assert.equal(describe(new TypeError('Failed to fetch')), 'The service is not responding.');
  assert.equal(describe(new ApiError(403, { code: 'forbidden', detail: 'x' }, { scope: 'audit:read' })), 'You do not have permission for this. The token lacks the scope audit:read.');
});
