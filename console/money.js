// Parses and formats money. Amounts are integers in the currency's minor unit; no float is used.

/** The API's maximum amount in minor units. */
export const MINOR_UNITS_MAX = 9007199254740991n;

const SEPARATOR_NAMES = { ' ': 'a space', "'": 'an apostrophe', '.': 'a point', ',': 'a comma' };

/**
 * Parses an amount by these rules, without further guesses:
 *
 * - Digits without separators are whole units: `12` is 12.00.
 * - Spaces and apostrophes group thousands. With both points and commas, the last one is the decimal separator.
 * - If only points or only commas occur, more than once, they group thousands.
 * - A single point or comma is the decimal separator, unless three digits follow: `1.234` is ambiguous, so the user chooses.
 * - Every group but the first has exactly three digits. The decimals have one digit up to the currency's number of digits.
 *
 * @param {string} text the input
 * @param {{code: string, digits: number}} currency
 * @param {boolean} [zero] whether an amount of zero is allowed
 * @returns {{minor: number} | {error: string} | {question: string, readings: string[]}} minor units; or an error; or, for
 *   ambiguous input, a question and the unambiguous spellings of its possible meanings
 */
export function readMoney(text, { code, digits }, zero = false) {
  const typed = text.trim().replace(/[\u00a0\u2009\u202f]/g, ' ').replace(/’/g, "'");
  if (typed === '') return { error: 'Enter an amount.' };
  if (/^[-−+]/.test(typed)) return { error: 'Enter an amount without a sign.' };
  if (!/^[0-9., ']+$/.test(typed)) return { error: `Enter the amount in ${code} as digits, for example ${sample(digits)}.` };
  if (!/^[0-9].*[0-9]$|^[0-9]$/.test(typed)) return { error: `An amount must begin and end with a digit, for example ${sample(digits)}.` };

  const marks = typed.match(/[., ']/g) ?? [];
  const pointsAndCommas = marks.filter((mark) => mark === '.' || mark === ',');
  const last = pointsAndCommas.at(-1);
  const isAlone = pointsAndCommas.length === 1 && marks.length === 1;
  if (isAlone && typed.length - typed.indexOf(last) - 1 === 3 && /^[1-9][0-9]{0,2}[.,]/.test(typed)) {
    return askForMeaning(typed, last, { code, digits }, zero);
  }
  const mixed = pointsAndCommas.some((mark) => mark !== last);
  const isDecimal = last !== undefined && (mixed || pointsAndCommas.length === 1);
  const at = isDecimal ? typed.lastIndexOf(last) : typed.length;
  return amount(typed.slice(0, at), typed.slice(at + 1), { code, digits }, zero);
}

/** For input such as `1.234`: offers the amounts of this currency that it can mean, with thousands or with decimals. */
function askForMeaning(typed, mark, { code, digits }, zero) {
  const [whole, rest] = typed.split(mark);
  const readings = [];
  if (amount(whole + rest, '', { code, digits }, zero).minor !== undefined) {
    readings.push(digits === 0 ? whole + rest : `${whole}${rest}.${'0'.repeat(digits)}`);
  }
  // A leading or trailing zero makes the reading with decimals unambiguous.
  if (digits === 3) readings.push(`0${whole}.${rest}`);
  if (digits > 3) readings.push(`${whole}.${rest}0`);
  return { question: `The separator in ${typed} can mean thousands or decimals. Did you mean this amount?`, readings };
}

/** The amount with these digits before and after the decimal separator. */
function amount(whole, decimals, { code, digits }, zero) {
  const used = [...new Set(whole.match(/[., ']/g) ?? [])];
  if (used.length > 1) return { error: `Use only one thousands separator, not ${used.map((mark) => SEPARATOR_NAMES[mark]).join(' and ')}.` };
  if (used.length === 1) {
    const groups = whole.split(used[0]);
    const isRegular = /^[1-9][0-9]{0,2}$/.test(groups[0]) && groups.slice(1).every((group) => /^[0-9]{3}$/.test(group));
    if (!isRegular) return { error: `Each group of thousands needs three digits. Enter an amount such as ${sample(digits)}.` };
    whole = groups.join('');
  }
  if (!/^[0-9]*$/.test(decimals)) return { error: `No other separator can follow the decimal separator. Enter an amount such as ${sample(digits)}.` };
  if (decimals.length > digits) return { error: `Amounts in ${code} have ${digits === 0 ? 'no decimals' : `at most ${digits} decimals`}.` };
  const minor = BigInt(whole + decimals.padEnd(digits, '0'));
  if (minor === 0n && !zero) return { error: 'Enter an amount above zero.' };
  if (minor > MINOR_UNITS_MAX) return { error: `The maximum amount is ${decimal(MINOR_UNITS_MAX, digits)} ${code}.` };
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
 * Formats minor units for the reader's locale. The number of digits comes from the service, because browsers deviate from
 * ISO 4217 for some currencies.
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
