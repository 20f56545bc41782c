import assert from 'node:assert/strict';
import test from 'node:test';
import { decimal, formatMoney, readMoney } from '../../../console/money.js';

const EUR = { code: 'EUR', digits: 2 };
const JPY = { code: 'JPY', digits: 0 };
const BHD = { code: 'BHD', digits: 3 };

const accepts = (currency, cases) => Object.entries(cases).forEach(([text, minor]) => assert.deepEqual(readMoney(text, currency), { minor }, text));
const rejects = (currency, texts) => texts.forEach((text) => assert.ok(readMoney(text, currency).error, `${text}: ${JSON.stringify(readMoney(text, currency))}`));

test('amounts are parsed in the notation of many countries', () => {
  accepts(EUR, {
    '12': 1200, '12.5': 1250, '12,5': 1250, '12.50': 1250, '0.01': 1, '0,01': 1, ' 7 ': 700,
    '1.234,56': 123456, '1,234.56': 123456, '1 234,56': 123456, "1'234.56": 123456, '1’234.56': 123456, '1\u00a0234,56': 123456, '1\u202f234,56': 123456,
    '1.234.567': 123456700, '1,234,567': 123456700, '1 234': 123400, "1'234": 123400, '1.234.567,8': 123456780, '1,234,567.89': 123456789,
    '1234.5': 123450, '12345,67': 1234567, '0.5': 50, '1234567': 123456700,
  });
  accepts(JPY, { '1250': 1250, '1 250': 1250, '1,234,567': 1234567 });
  accepts(BHD, { '1.23': 1230, '1234.567': 1234567, '0.123': 123, '1,234.567': 1234567, '1': 1000 });
});

test('an ambiguous amount returns a question with unambiguous spellings', () => {
  for (const text of ['1.234', '1,234', '12.345', '123,456', '1.000']) {
    for (const currency of [EUR, JPY, BHD]) {
      const { question, readings, minor, error } = readMoney(text, currency);
      assert.ok(question.includes(text) && minor === undefined && error === undefined, text);
      for (const reading of readings) assert.ok(readMoney(reading, currency).minor > 0, `${text} ${currency.code} ${reading}`);
    }
  }
  assert.deepEqual(readMoney('1.234', EUR).readings.map((reading) => readMoney(reading, EUR).minor), [123400]);
  assert.deepEqual(readMoney('1,234', BHD).readings.map((reading) => readMoney(reading, BHD).minor), [1234000, 1234]);
  assert.deepEqual(readMoney('1.234', JPY).readings.map((reading) => readMoney(reading, JPY).minor), [1234]);
});

test('text that is not an amount is an error', () => {
  rejects(EUR, [
    '', ' ', 'abc', '1e3', '-1', '+1', '−1', '12.', '.5', ',', '.', '1.2.3', '12.34.56', '1,23,456', '1.234,56.7', '1,2.3,4', '12.345,678', '1.2345', '12.3456',
    '1 2', '1 23,45', "1'2345", '1 234.567.89', '1.234 567', '0', '0.00', '١٢', '１２', '12 €', '$5', '0x10', '1,234.567', '1..2', '1,,2', '0.001', '1.234\n.5x',
    '90071992547409.92', '99999999999999999999', '01.234',
  ]);
  rejects(JPY, ['12.5', '0.5', '1.2345']);
  rejects(BHD, ['0.1234', '1,2345']);
});

test('zero is an amount only if it is allowed', () => {
  assert.deepEqual(readMoney('0', EUR, true), { minor: 0 });
  assert.ok(readMoney('', EUR, true).error);
});

test('amounts up to the maximum are exact', () => {
  for (const minor of [1, 10, 99, 100, 101, 123456789012345, 9007199254740991, 9007199254740990, 4503599627370497]) {
    for (const currency of [EUR, JPY, BHD]) {
      const text = decimal(minor, currency.digits);
      const read = readMoney(/^[1-9]\d{0,2}\.\d{3}$/.test(text) ? `0${text}` : text, currency);
      assert.deepEqual(read, { minor }, text);
    }
  }
});

test('amounts are formatted exactly, with the digits of their currency', () => {
  assert.equal(formatMoney(9007199254740991, EUR, 'en'), '€90,071,992,547,409.91');
  assert.equal(formatMoney(123456789012345678901234n, EUR, 'en'), '€1,234,567,890,123,456,789,012.34');
  assert.equal(formatMoney(1234, JPY, 'en'), '¥1,234');
  assert.equal(formatMoney(1234, BHD, 'en').replace('\u00a0', ' '), 'BHD 1.234');
  assert.equal(formatMoney(-5, EUR, 'en'), '-€0.05');
  assert.equal(formatMoney(123456, EUR, 'de').replace('\u00a0', ' '), '1.234,56 €');
  // By CLDR data this currency has no decimals.
  assert.equal(formatMoney(123456, { code: 'AFN', digits: 2 }, 'en').replace(/[^0-9.,]/g, ''), '1,234.56');
});
