// Money: whole numbers of a currency's minor unit, as people write them and as they read them. There is no float here.

/** The most that an amount may be, in minor units: the API's ceiling. */
export const MINOR_UNITS_MAX = 9007199254740991n;

const GROUPS = { ' ': 'a space', "'": 'an apostrophe', '.': 'a point', ',': 'a comma' };

/**
 * Reads an amount. The rules, and nothing is guessed beyond them:
 *
 * - Digits alone are whole units: `12` is 12.00.
 * - Spaces and apostrophes group thousands. Points and commas do either: where both stand, the last is the decimal mark.
 * - Where one of them stands alone and more than once, it groups thousands.
 * - Where one stands once, it is the decimal mark, unless three digits follow: `1.234` may be either, and is asked back.
 * - Groups have exactly three digits but the first; behind the decimal mark stand one digit to as many as the currency has.
 *
 * @param {string} text what was typed
 * @param {{code: string, digits: number}} currency
 * @param {boolean} [zero] whether nothing at all is an amount too
 * @returns {{minor: number} | {error: string} | {question: string, readings: string[]}} minor units; or what is wrong; or a
 *   question with unambiguous ways to write what may be meant
 */
export function readMoney(text, { code, digits }, zero = false) {
  const typed = text.trim().replace(/[\u00a0\u2009\u202f]/g, ' ').replace(/’/g, "'");
  if (typed === '') return { error: 'Write an amount.' };
  if (/^[-−+]/.test(typed)) return { error: 'Write an amount without a sign.' };
  if (!/^[0-9., ']+$/.test(typed)) return { error: `Write the amount in ${code} in digits, such as ${sample(digits)}.` };
  if (!/^[0-9].*[0-9]$|^[0-9]$/.test(typed)) return { error: `An amount begins and ends with a digit, such as ${sample(digits)}.` };

  const marks = typed.match(/[., ']/g) ?? [];
  const strong = marks.filter((mark) => mark === '.' || mark === ',');
  const last = strong.at(-1);
  const isAlone = strong.length === 1 && marks.length === 1;
  if (isAlone && typed.length - typed.indexOf(last) - 1 === 3 && /^[1-9][0-9]{0,2}[.,]/.test(typed)) {
    return asked(typed, last, { code, digits }, zero);
  }
  const mixed = strong.some((mark) => mark !== last);
  const isDecimal = last !== undefined && (mixed || strong.length === 1);
  const at = isDecimal ? typed.lastIndexOf(last) : typed.length;
  return amount(typed.slice(0, at), typed.slice(at + 1), { code, digits }, zero);
}

/** `1.234`: a thousand and more, or three digits behind the mark. Says which of them an amount of this currency can be. */
function asked(typed, mark, { code, digits }, zero) {
  const [whole, rest] = typed.split(mark);
  const readings = [];
  if (amount(whole + rest, '', { code, digits }, zero).minor !== undefined) {
    readings.push(digits === 0 ? whole + rest : `${whole}${rest}.${'0'.repeat(digits)}`);
  }
  // With a digit more or less behind the mark it can be read in one way alone.
  if (digits === 3) readings.push(`0${whole}.${rest}`);
  if (digits > 3) readings.push(`${whole}.${rest}0`);
  return { question: `The mark in ${typed} may divide thousands or decimals. Do you mean this?`, readings };
}

/** The amount of these digits before and behind the decimal mark. */
function amount(before, behind, { code, digits }, zero) {
  const used = [...new Set(before.match(/[., ']/g) ?? [])];
  if (used.length > 1) return { error: `Thousands are divided by ${used.map((mark) => GROUPS[mark]).join(' and ')}: use one of them.` };
  if (used.length === 1) {
    const groups = before.split(used[0]);
    const isRegular = /^[1-9][0-9]{0,2}$/.test(groups[0]) && groups.slice(1).every((group) => /^[0-9]{3}$/.test(group));
    if (!isRegular) return { error: `The digits are not divided into thousands: write ${sample(digits)} for example.` };
    before = groups.join('');
  }
  if (!/^[0-9]*$/.test(behind)) return { error: `The decimal mark stands last: write ${sample(digits)} for example.` };
  if (behind.length > digits) return { error: `${code} has ${digits === 0 ? 'no decimals' : `at most ${digits} decimals`}.` };
  const minor = BigInt(before + behind.padEnd(digits, '0'));
  if (minor === 0n && !zero) return { error: 'Write an amount above zero.' };
  if (minor > MINOR_UNITS_MAX) return { error: `The most that one amount can be is ${decimal(MINOR_UNITS_MAX, digits)} ${code}.` };
  return { minor: Number(minor) };
}

const sample = (digits) => (digits === 0 ? '1250' : `12.${'50'.padEnd(digits, '0').slice(0, digits)}`);

/**
 * Minor units as a plain decimal number: `12550` with 2 digits is `125.50`.
 * @param {bigint | number} minor
 */
export function decimal(minor, digits) {
  const units = BigInt(minor);
  const sign = units < 0n ? '-' : '';
  const all = (units < 0n ? -units : units).toString().padStart(digits + 1, '0');
  return digits === 0 ? sign + all : `${sign}${all.slice(0, -digits)}.${all.slice(-digits)}`;
}

/**
 * Minor units as people of this place read them. The digits are the service's, for what browsers believe of some
 * currencies is not what ISO 4217 says.
 * @param {bigint | number} minor
 */
export function formatMoney(minor, { code, digits }, locale) {
  return formatter(code, digits, locale).format(decimal(minor, digits));
}

const formatters = new Map();

function formatter(code, digits, locale) {
  const name = `${code} ${digits} ${locale}`;
  if (!formatters.has(name)) {
    const options = { style: 'currency', currency: code, minimumFractionDigits: digits, maximumFractionDigits: digits };
    formatters.set(name, new Intl.NumberFormat(locale, options));
  }
  return formatters.get(name);
}
