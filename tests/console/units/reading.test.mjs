import assert from 'node:assert/strict';
import test from 'node:test';
import { behind } from '../../../console/moment.js';
import { later, total } from '../../../console/position.js';
import { follow, reader } from '../../../console/sse.js';

test('events are read however the stream is cut', () => {
  const text = ': hello\r\n\r\nid: 1-aa\nevent: X\ndata: {"a":1}\n\ndata: two\ndata:  lines\nid: 2-bb\n\n: beat\nid: 3-cc\n\ndata: half';
  const whole = [{ id: '1-aa', data: '{"a":1}' }, { id: '2-bb', data: 'two\n lines' }];
  for (let at = 0; at <= text.length; at++) {
    const told = [];
    const events = reader((event) => told.push(event));
    events.read(text.slice(0, at));
    events.read(text.slice(at));
    assert.deepEqual(told, whole, `cut at ${at}`);
    assert.equal(events.id, '3-cc');
  }
});

test('a broken stream goes on behind the last event', async () => {
  const control = new AbortController();
  const asked = [];
  const told = [];
  const states = [];
  const streams = ['id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\nda', 'id: 3\ndata: c\n\n'];
  const open = async (lastId) => {
    asked.push(lastId);
    const text = streams.shift();
    if (text === undefined) control.abort();
    return new Response(text ?? '');
  };
  await follow(open, ({ data }) => told.push(data), (state) => states.push(state), control.signal);
  assert.deepEqual(told, ['a', 'b', 'c']);
  assert.deepEqual(asked.slice(0, 2), ['', '2'], 'the third was cut off');
  assert.deepEqual(states.slice(0, 4), ['connecting', 'live', 'waiting', 'connecting']);
});

test('a stream whose log has another history begins anew', async () => {
  const control = new AbortController();
  const asked = [];
  const open = async (lastId) => {
    asked.push(lastId);
    if (asked.length === 3) control.abort();
    if (lastId) throw Object.assign(new Error('no such event'), { status: 400 });
    return new Response('id: 7\ndata: a\n\n');
  };
  await follow(open, () => {}, () => {}, control.signal);
  assert.deepEqual(asked, ['', '7', '']);
});

test('the later of two positions is later in every partition', () => {
  assert.equal(later('', '42'), '42');
  assert.equal(later('42', ''), '42');
  assert.equal(later('9', '10'), '10');
  assert.equal(later('10', '9'), '10');
  assert.equal(later('0:42,3:17', '0:40,2:5,3:18'), '0:42,2:5,3:18');
});

test('events are counted over all partitions', () => {
  assert.equal(total('42'), 42);
  assert.equal(total('0:42,3:17'), 59);
  assert.equal(total('0:0'), 0);
});

test('the bound behind a moment is a microsecond later', () => {
  assert.equal(behind('2026-01-31T12:00:00.000000Z'), '2026-01-31T12:00:00.000001Z');
  assert.equal(behind('2026-01-31T23:59:59.999999Z'), '2026-02-01T00:00:00.000Z');
});
