import assert from 'node:assert/strict';
import test from 'node:test';

globalThis.sessionStorage = { getItem: () => null, setItem() {}, removeItem() {} };
globalThis.location = { hash: '' };
const { totalsOf } = await import('../../../console/owner.js');
const { readAll } = await import('../../../console/export.js');

test('totals by currency are exact beyond the safe integers', () => {
  const account = (currency, balance) => ({ currency, balance, held: 1, available: balance - 1 });
  const totals = totalsOf([account('USD', 5), account('EUR', 9007199254740991), account('EUR', 9007199254740991)]);
  assert.deepEqual(totals, [
    ['EUR', { count: 2, balance: 18014398509481982n, held: 2n, available: 18014398509481980n }],
    ['USD', { count: 1, balance: 5n, held: 1n, available: 4n }],
  ]);
});

test('an export reads every page, also behind an empty one, up to its limit', async () => {
  const pages = { undefined: { data: [1, 2], next: 'a' }, a: { data: [], next: 'b' }, b: { data: [3], next: null } };
  assert.deepEqual(await readAll(async (after) => pages[after], 10), { rows: [1, 2, 3], isComplete: true });
  assert.deepEqual(await readAll(async (after) => pages[after], 2), { rows: [1, 2], isComplete: false });
});
