import assert from 'node:assert/strict';
import test from 'node:test';
import { eventParser, subscribe } from '../../../console/sse.js';

test('events are parsed wherever the stream is split into chunks', () => {
  const text = ': hello\r\n\r\nid: 1-aa\nevent: X\ndata: {"a":1}\n\ndata: two\ndata:  lines\nid: 2-bb\n\n: beat\nid: 3-cc\n\ndata: half';
  const expected = [{ id: '1-aa', data: '{"a":1}' }, { id: '2-bb', data: 'two\n lines' }];
  for (let at = 0; at <= text.length; at++) {
    const events = [];
    const parser = eventParser((event) => events.push(event));
    parser.feed(text.slice(0, at));
    parser.feed(text.slice(at));
    assert.deepEqual(events, expected, `split at ${at}`);
    assert.equal(parser.lastEventId, '3-cc');
  }
});

test('an ID counts only when its block is complete', () => {
  const parser = eventParser(() => {});
  parser.feed('retry: 500\nid: 7-aa\n\n');
  assert.equal(parser.lastEventId, '7-aa');
  parser.feed('id: 8-bb\ndata: half');
  assert.equal(parser.lastEventId, '7-aa');
});

test('a broken stream resumes after the last event', async () => {
  const control = new AbortController();
  const lastIds = [];
  const received = [];
  const states = [];
  const streams = ['id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\nda', 'id: 3\ndata: c\n\n'];
  const connect = async (lastEventId) => {
    lastIds.push(lastEventId);
    const text = streams.shift();
    if (text === undefined) control.abort();
    return new Response(text ?? '');
  };
  await subscribe(connect, ({ data }) => received.push(data), (state) => states.push(state), control.signal);
  assert.deepEqual(received, ['a', 'b', 'c']);
  assert.deepEqual(lastIds.slice(0, 2), ['', '2'], 'the third event was incomplete');
  assert.deepEqual(states.slice(0, 4), ['connecting', 'live', 'waiting', 'connecting']);
});

test('a stream restarts from the beginning after the log was replaced', async () => {
  const control = new AbortController();
  const lastIds = [];
  const connect = async (lastEventId) => {
    lastIds.push(lastEventId);
    if (lastIds.length === 3) control.abort();
    if (lastEventId) throw Object.assign(new Error('no such event'), { status: 400 });
    return new Response('id: 7\ndata: a\n\n');
  };
  await subscribe(connect, () => {}, () => {}, control.signal);
  assert.deepEqual(lastIds, ['', '7', '']);
});
