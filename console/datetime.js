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

/** The first moment of a day of the reader's time zone, from the value of a date input. */
export const dayStart = (date) => new Date(`${date}T00:00:00`).toISOString();

/** The first moment of the next day: the exclusive upper bound of a day that is included. */
export function nextDay(date) {
  const start = new Date(`${date}T00:00:00`);
  start.setDate(start.getDate() + 1);
  return start.toISOString();
}
