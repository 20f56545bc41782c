// Lossless JSON parsing: an integer that a Number cannot represent exactly becomes a BigInt. Bank-wide sums can be that large.

/** @param {string} text */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const isLossy = typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value);
    return isLossy && context?.source && /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
  });
}
