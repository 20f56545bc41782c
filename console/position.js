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
  // In ascending order, as the service writes and takes them.
  const inOrder = [...furthest].sort(([one], [other]) => Number(one) - Number(other));
  return inOrder.map(([partition, position]) => (partition === '' ? position : `${partition}:${position}`)).join(',');
}

/** How many events are up to there, over all partitions. */
export function total(position) {
  return position.split(',').reduce((sum, part) => sum + Number(part.split(':').at(-1)), 0);
}
