// The tab with the recorded events of an account, newest first, and their verification.

import { AccountLink, ListFooter, Money, Time, formatNumber, html, useCurrencies, useEffect, usePages, useRef, useState } from './components.js';
import { read } from './api.js';
import { amountOf, counterparty, eventDetails, eventLabel } from './labels.js';
import { describe } from './problems.js';
import { PAGE_ROWS, useRefresh } from './transactions.js';

/** Larger accounts are verified only on request: verification takes about a second per 100 000 events. */
const AUTO_VERIFY_EVENTS_MAX = 5_000;
/** How many of the latest events are searched for the change of status. */
const SEARCHED_EVENTS_MAX = 1000;

/** The latest event of this type up to a version, among the latest events; `undefined` if it is older. */
export async function findLastEvent(id, version, type, signal) {
  const after = Math.max(0, version - SEARCHED_EVENTS_MAX);
  const { data } = await read(`/v1/accounts/${id}/events`, { after_version: after, limit: version - after }, { signal, fresh: false });
  return data.findLast((event) => event.type === type);
}

/** The API lists events oldest first, so pages are counted down from the last version. */
export function Events({ account, now, isHistorical }) {
  const { account_id: id, version } = account;
  const currency = useCurrencies()?.get(account.currency);
  const lastVersion = useRef(version);
  lastVersion.current = version;
  const loadPage = async (upTo = lastVersion.current, signal) => {
    const after = Math.max(0, upTo - PAGE_ROWS);
    const { data } = await read(`/v1/accounts/${id}/events`, { after_version: after, limit: upTo - after }, { signal, fresh: false });
    return { data: data.reverse(), next: after > 0 ? after : null };
  };
  const list = usePages(loadPage, [id, isHistorical ? version : 'now']);
  useRefresh(list, account, isHistorical);
  const [verification, setVerification] = useState({});
  const verify = () => {
    setVerification({ isRunning: true });
    read(`/v1/accounts/${id}/verification`, {}, { fresh: false }).then((result) => setVerification({ result }), (error) => setVerification({ error }));
  };
  useEffect(() => {
    if (now.version <= AUTO_VERIFY_EVENTS_MAX) verify();
  }, [id]);
  const isVerified = (event) => verification.result?.verified && event.version <= verification.result.events;
  return html`<section aria-labelledby="events">
    <div class="heading"><h2 id="events" class="visually-hidden">Events</h2><${VerificationStatus} verification=${verification} verify=${verify} /></div>
    <div class="table-scroll" tabindex="0" role="group" aria-label="Events">
    <table class="events">
      <caption class="visually-hidden">Events, newest first</caption>
      <thead><tr><th scope="col" class="end"><span class="visually-hidden">Version</span><span aria-hidden="true">#</span></th><th scope="col">Event</th><th scope="col" class="end">Amount</th><th scope="col">User</th><th scope="col">Time</th><th scope="col">Hash</th></tr></thead>
      <tbody>${list.rows.map((event) => html`<${EventRow} key=${event.id} event=${event} currency=${currency} isVerified=${isVerified(event)} />`)}</tbody>
    </table></div>
    <${ListFooter} list=${list} itemsLabel="events" />
  </section>`;
}

function EventRow({ event, currency, isVerified }) {
  const amount = amountOf(event);
  const otherAccount = counterparty(event);
  return html`<tr>
    <td class="end">${formatNumber(event.version)}</td>
    <td class="text">${eventLabel(event.type)}${otherAccount && html` ${event.data.to ? 'to' : 'from'} <${AccountLink} id=${otherAccount} />`} <span class="muted">${eventDetails(event, currency)}</span></td>
    <td class="end">${amount && html`<${Money} ...${amount} currency=${currency?.code} />`}</td>
    <td class="name">${event.metadata.user_id}</td>
    <td><${Time} at=${event.recorded_at} /></td>
    <td class="hash"><span class="id" title=${event.hash}>${event.hash.slice(0, 12)}…</span>${isVerified && html` <span class="good-text" role="img" aria-label="verified" title="The hash chain and the view match">✓</span>`}</td>
  </tr>`;
}

/** The result of verifying the account, and the button to verify it. */
function VerificationStatus({ verification: { isRunning, result, error }, verify }) {
  const text = isRunning ? 'Verifying…' : result?.verified ? `✓ Verified: ${formatNumber(result.events)} events` : result ? `✗ Verification failed: ${result.finding}` : '';
  return html`<p role="status" class=${`state ${result ? (result.verified ? 'live' : 'broken') : ''}`}>${text}</p>
    ${error && html`<p class="error">${describe(error)}</p>`}
    ${!isRunning && html`<button type="button" class="secondary" onClick=${verify}>${result ? 'Verify again' : 'Verify'}</button>`}`;
}
