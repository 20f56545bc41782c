// Moments: as fields take them, and as bounds of what is asked for.

const two = (n) => String(n).padStart(2, '0');

/** A time of the API as a field for local times takes it. */
export function local(at) {
  const time = new Date(at);
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}T${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

/** The first moment behind what is shown, as a bound that is excluded: a microsecond later. */
export function behind(at) {
  const [second, micros] = at.slice(0, -1).split('.');
  const next = Number(micros) + 1;
  if (next < 1_000_000) return `${second}.${String(next).padStart(6, '0')}Z`;
  return new Date(Date.parse(`${second}Z`) + 1000).toISOString();
}
