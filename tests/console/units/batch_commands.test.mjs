import assert from 'node:assert/strict';
import test from 'node:test';

globalThis.sessionStorage = { getItem: () => null, setItem() {}, removeItem() {} };
globalThis.location = { hash: '' };
const { EXAMPLE, readCommands } = await import('../../../console/batch_commands.js');

const currencies = new Map([['EUR', { code: 'EUR', digits: 2 }], ['JPY', { code: 'JPY', digits: 0 }]]);
const ONE = '01900000-0000-7000-8000-0000000000aa';
const TWO = '01900000-0000-7000-8000-0000000000bb';

test('rows become commands with amounts in minor units', () => {
  const { rows, errors } = readCommands(`command;account_id;amount;currency;expires_in_hours;version\ndeposit;${ONE};1.234,50;EUR;;\nPlace_hold;${ONE};700;jpy;2;\nreverse;${ONE};;;;3`, currencies);
  assert.deepEqual(errors, []);
  assert.deepEqual(rows.map(({ command }) => command), [
    { command: 'deposit', account_id: ONE, amount: 123450, currency: 'EUR' },
    { command: 'place_hold', account_id: ONE, amount: 700, currency: 'JPY', expires_in_seconds: 7200 },
    { command: 'reverse', account_id: ONE, version: 3 },
  ]);
  assert.deepEqual(readCommands(EXAMPLE, currencies).errors, []);
});

test('each wrong row is named with its line and what to do', () => {
  const rows = [`deposit,${ONE},5,,`, `deposit,${ONE},5,ABC,`, 'steal,,,,', `deposit,${ONE.slice(1)},5,EUR,`, `close,${ONE},5,EUR,`, `transfer,${ONE},5,EUR,`, `deposit,${ONE},1.234,EUR,`, `deposit,${ONE},12.345.6,EUR,`];
  const { errors } = readCommands(`command,account_id,amount,currency,to\n${rows.join('\n')}`, currencies);
  assert.deepEqual(errors.map(({ line }) => line), [2, 3, 4, 5, 6, 7, 8, 9]);
  const texts = errors.map(({ text }) => text);
  [/needs the column “currency”/, /no currency “ABC”/, /no command “steal”/, /full ID/, /has no “amount”/, /needs the column “from”/, /1\.234/, /12\.345\.6/].forEach((pattern, n) => assert.match(texts[n], pattern));
});

test('a table without names of columns is refused as a whole', () => {
  assert.match(readCommands(`deposit,${ONE},5,EUR`, currencies).errors[0].text, /first row must name/);
  assert.match(readCommands(`command,acount\nclose,${TWO}`, currencies).errors[0].text, /no column “acount”/);
});
