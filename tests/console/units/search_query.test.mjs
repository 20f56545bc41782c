import assert from 'node:assert/strict';
import test from 'node:test';

globalThis.sessionStorage = { getItem: () => null, setItem() {}, removeItem() {} };
globalThis.location = { hash: '' };
const { readQuery } = await import('../../../console/search_query.js');
const { accountFilters } = await import('../../../console/accounts.js');

const currencies = new Map([['EUR', { code: 'EUR', digits: 2 }], ['JPY', { code: 'JPY', digits: 0 }]]);
const amounts = (text) => readQuery(text, currencies).amounts.map(({ currency, minor }) => `${currency} ${minor}`).join();

test('a search text is read as everything that it can be', () => {
  assert.equal(amounts('12,50 EUR'), 'EUR 1250');
  assert.equal(amounts('jpy 700'), 'JPY 700');
  assert.equal(amounts('700'), 'EUR 70000,JPY 700');
  assert.equal(amounts('12.50'), 'EUR 1250');
  assert.equal(amounts('XYZ 5'), '');
  assert.equal(amounts('invoice 17 of'), '');
  assert.equal(readQuery('01900000-0000-7000-8000-0000000000AA', currencies).id, '01900000-0000-7000-8000-0000000000aa');
  assert.equal(readQuery('ada', currencies).id, undefined);
});

test('filters of the address become filters of the API in minor units', () => {
  const filters = accountFilters({ q: 'ada', currency: 'EUR', min: '-12.5', max: '1,000.00', sort: '-balance', key: 'branch', value: 'Berlin' }, currencies);
  assert.deepEqual({ ...filters }, { q: 'ada', owner: undefined, status: undefined, currency: 'EUR', min_balance: -1250, max_balance: 100000, sort: '-balance', 'metadata.branch': 'Berlin' });
  assert.equal(accountFilters({ min: '5', sort: 'balance' }, currencies).sort, undefined);
});
