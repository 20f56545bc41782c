// JSON in which no integer loses a digit: what a Number cannot hold becomes a BigInt. Sums over a whole bank may be so large.

/** @param {string} text */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const isLossy = typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value);
    return isLossy && context?.source && /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
  });
}
