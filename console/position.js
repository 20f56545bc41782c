// Log positions, as receipts contain them and as `min_position` takes them.

/** The later of two positions, partition by partition: `42`, or `0:42,3:17` for a partitioned log. */
export function maxPosition(one, other) {
  const parse = (text) => text.split(',').map((part) => (part.includes(':') ? part.split(':') : ['', part]));
  if (!one || !other) return one || other;
  const latest = new Map(parse(one));
  for (const [partition, position] of parse(other)) {
    const known = latest.get(partition);
    if (known === undefined || BigInt(position) > BigInt(known)) latest.set(partition, position);
  }
  // The service requires partitions in ascending order.
  const sorted = [...latest].sort(([one], [other]) => Number(one) - Number(other));
  return sorted.map(([partition, position]) => (partition === '' ? position : `${partition}:${position}`)).join(',');
}

/** The number of events up to a position, summed over all partitions. */
export function eventCount(position) {
  return position.split(',').reduce((sum, part) => sum + Number(part.split(':').at(-1)), 0);
}
