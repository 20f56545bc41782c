// Routing in the URL fragment (`#/…`): each page has its own address, and the server only serves `/`.

import { useEffect, useState } from './components.js';

export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
export const ACCOUNT_ID = UUID;

/** `#/accounts/1?version=7` is the path `['accounts', '1']` and the query `{version: '7'}`. */
export function parseRoute(hash = location.hash) {
  const [path, query] = hash.replace(/^#\/?/, '').split('?');
  const segments = path.split('/').filter(Boolean).map(decode);
  return { path: segments, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export function useRoute() {
  const [current, setCurrent] = useState(parseRoute());
  useEffect(() => {
    const onHashChange = () => setCurrent(parseRoute());
    addEventListener('hashchange', onHashChange);
    return () => removeEventListener('hashchange', onHashChange);
  }, []);
  return current;
}

/** Navigates to an address. With `replace`, the current history entry is replaced. */
export function navigate(hash, replace = false) {
  if (!replace) return void (location.hash = hash);
  history.replaceState(null, '', hash);
  dispatchEvent(new HashChangeEvent('hashchange'));
}

/** The address of an account's page. Entries of `query` that are empty are left out. */
export function accountAddress(id, query = {}) {
  const entries = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== ''));
  return `#/accounts/${id}${entries.size ? `?${entries}` : ''}`;
}

/** The address of the list of webhooks, or of one of them. */
export const webhookAddress = (id) => `#/operations/webhooks${id ? `/${id}` : ''}`;

/** The title of the browser tab. */
export function setTitle(page) {
  document.title = `${page} – Passbook`;
}
