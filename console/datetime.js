// Conversions of API timestamps for input fields and query bounds.

const twoDigits = (n) => String(n).padStart(2, '0');

/** An API timestamp as the value of a `datetime-local` input. */
export function toLocalInputValue(at) {
  const time = new Date(at);
  const date = `${time.getFullYear()}-${twoDigits(time.getMonth() + 1)}-${twoDigits(time.getDate())}`;
  return `${date}T${twoDigits(time.getHours())}:${twoDigits(time.getMinutes())}:${twoDigits(time.getSeconds())}`;
}

/** The exclusive upper bound that includes `at`: one microsecond later. */
export function exclusiveEnd(at) {
  const [second, micros] = at.slice(0, -1).split('.');
  const next = Number(micros) + 1;
  if (next < 1_000_000) return `${second}.${String(next).padStart(6, '0')}Z`;
  return new Date(Date.parse(`${second}Z`) + 1000).toISOString();
}
