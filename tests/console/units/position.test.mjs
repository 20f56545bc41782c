import assert from 'node:assert/strict';
import test from 'node:test';
import { exclusiveEnd } from '../../../console/datetime.js';
import { eventCount, maxPosition } from '../../../console/position.js';

test('the maximum of two positions is taken in every partition', () => {
  assert.equal(maxPosition('', '42'), '42');
  assert.equal(maxPosition('42', ''), '42');
  assert.equal(maxPosition('9', '10'), '10');
  assert.equal(maxPosition('10', '9'), '10');
  assert.equal(maxPosition('0:42,3:17', '0:40,2:5,3:18'), '0:42,2:5,3:18');
});

test('events are counted over all partitions', () => {
  assert.equal(eventCount('42'), 42);
  assert.equal(eventCount('0:42,3:17'), 59);
  assert.equal(eventCount('0:0'), 0);
});

test('the exclusive end of a time is one microsecond later', () => {
  assert.equal(exclusiveEnd('2026-01-31T12:00:00.000000Z'), '2026-01-31T12:00:00.000001Z');
  assert.equal(exclusiveEnd('2026-01-31T23:59:59.999999Z'), '2026-02-01T00:00:00.000Z');
});
