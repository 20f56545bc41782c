// Where one is: behind the `#`, so that every page is an address, and only `/` is served.

import { useEffect, useState } from './parts.js';

/** `#/accounts/1?version=7` is the path `['accounts', '1']` and the query `{version: '7'}`. */
export function route(hash = location.hash) {
  const [path, query] = hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/').filter(Boolean).map(decoded);
  return { path: parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function useRoute() {
  const [current, setCurrent] = useState(route());
  useEffect(() => {
    const changed = () => setCurrent(route());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return current;
}

/** Goes to an address; `instead` of this one, so that the way back does not lead through it. */
export function go(hash, instead = false) {
  if (!instead) return void (location.hash = hash);
  history.replaceState(null, '', hash);
  dispatchEvent(new HashChangeEvent('hashchange'));
}
