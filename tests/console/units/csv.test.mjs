import assert from 'node:assert/strict';
import test from 'node:test';
import { Figure, defused, parseCsv, toCsv } from '../../../console/csv.js';

test('only texts that start like a formula get an apostrophe, as on the server', () => {
  for (const text of ['=1+1', '+1', '-1', '@SUM(A1)', '\tx', '\rx', '\nx', ' =1', '"=1', "'=1", '\ufeff=1', '\uff1d1', '\u00a0@x']) assert.equal(defused(text), `'${text}`);
  for (const text of ['', 'rent', '1-2', 'a=b', 'x@y', ' rent', '"quoted"', 'ж']) assert.equal(defused(text), text);
  assert.equal(defused('rent;=1\n+2'), "rent;'=1\n'+2");
});

test('cells are quoted where they must be, and amounts keep their sign', () => {
  assert.equal(toCsv([['Owner', 'Balance'], ['a "b", c', new Figure('-1.50')], ['=cmd', null]]), '\ufeffOwner,Balance\r\n"a ""b"", c",-1.50\r\n\'=cmd,\r\n');
});

test('files of every separator and quoting are read with their line numbers', () => {
  const cells = (text) => parseCsv(text).map(({ line, cells }) => [line, ...cells]);
  assert.deepEqual(cells('a,b\r\n1,"x, ""y"""\r\n\r\n2,z'), [[1, 'a', 'b'], [2, '1', 'x, "y"'], [4, '2', 'z']]);
  assert.deepEqual(cells('\ufeffa;b\n1;2,5\n'), [[1, 'a', 'b'], [2, '1', '2,5']]);
  assert.deepEqual(cells('a\tb\n"1\n2"\t3\n4\t5'), [[1, 'a', 'b'], [2, '1\n2', '3'], [4, '4', '5']]);
});
