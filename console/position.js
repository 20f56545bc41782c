// Positions in the log, as receipts tell them and as queries take them for `min_position`.

/** The later of two positions: `42`, or `0:42,3:17` over partitions. */
export function later(one, other) {
  const parts = (text) => text.split(',').map((part) => (part.includes(':') ? part.split(':') : ['', part]));
  if (!one || !other) return one || other;
  const furthest = new Map(parts(one));
  for (const [partition, position] of parts(other)) {
    const known = furthest.get(partition);
    if (known === undefined || BigInt(position) > BigInt(known)) furthest.set(partition, position);
  }
  return [...furthest].map(([partition, position]) => (partition === '' ? position : `${partition}:${position}`)).join(',');
}
