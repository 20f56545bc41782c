// One account: its current state, or its state at an earlier version or time.

import { AccountLink, ErrorNotice, ListFooter, Money, OwnerLink, Status, Time, formatNumber, formatTime, html, useCurrencies, useEffect, useInterval, useLoad, usePages, useRef, useState } from './components.js';
import { read } from './api.js';
import { Actions } from './actions.js';
import { BalanceChart } from './balance_chart.js';
import { exclusiveEnd, toLocalInputValue } from './datetime.js';
import { navigate } from './route.js';
import { amountOf, counterparty, eventDetails, eventLabel, isDebit, transactionLabel } from './labels.js';

const REFRESH_MS = 2_000;
const PAGE_ROWS = 25;
/** Larger accounts are verified only on request: verification takes about a second per 100 000 events. */
const AUTO_VERIFY_EVENTS_MAX = 5_000;

export function Account({ id, query }) {
  const list = useCurrencies();
  const current = useCurrentAccount(id);
  const now = current.account;
  const version = /^\d+$/.test(query.version ?? '') ? Number(query.version) : undefined;
  const isHistorical = version !== undefined || query.at !== undefined;
  const historical = useLoad(
    (signal) => (isHistorical ? read(`/v1/accounts/${id}`, { as_of_version: version, as_of: version === undefined ? query.at : undefined }, { signal }) : Promise.resolve()),
    [id, version, query.at],
  );
  // The previous state stays visible until the requested one is loaded.
  const last = useRef({ showsHistory: false });
  if (!isHistorical) last.current = { shown: now, showsHistory: false };
  else if (historical.error) last.current = { showsHistory: true };
  else if (historical.data) last.current = { shown: historical.data, showsHistory: true };
  const { shown, showsHistory } = last.current;
  // Some identity providers use UUIDs as subjects, so the ID of a missing account may be an owner.
  if (!now) return html`<${AccountHeader} id=${id} /><${ErrorNotice} error=${current.error} retry=${current.reload} />
    ${current.error?.status === 404 && html`<p><${OwnerLink} owner=${id}>Accounts of owner ${id}</${OwnerLink}></p>`}`;
  const currency = list?.get(now.currency);
  return html`<${AccountHeader} id=${id} account=${shown} isHistorical=${showsHistory} />
    <${HistoryControls} now=${now} shown=${shown} requested=${version} at=${query.at} isHistorical=${showsHistory} />
    ${isHistorical && html`<${ErrorNotice} error=${historical.error} />`}
    ${!isHistorical && html`<${ErrorNotice} error=${current.error} />`}
    ${shown && html`<div class=${`account${historical.isLoading && isHistorical ? ' stale' : ''}`}>
      <div>${isHistorical
        ? html`<section class="card" aria-labelledby="actions"><h2 id="actions">Actions</h2><p>Actions are not available in the historical view. <a href=${`#/accounts/${id}`}>Show current state</a></p></section>`
        : html`<${Actions} account=${now} currency=${currency} onReceipt=${current.onReceipt} />`}</div>
      <div>
        <section class="card" aria-labelledby="balance"><h2 id="balance">Balance over time</h2><${BalanceChart} account=${shown} currency=${currency} isHistorical=${showsHistory} /></section>
        <${Transactions} account=${shown} isHistorical=${showsHistory} />
        <${Events} account=${shown} currentVersion=${now.version} isHistorical=${showsHistory} />
      </div>
    </div>`}`;
}

/** The current account, polled. A response that is older than the state already shown is ignored. */
function useCurrentAccount(id) {
  const [account, setAccount] = useState(null);
  const loaded = useLoad((signal) => read(`/v1/accounts/${id}`, {}, { signal }), [id]);
  const advance = (next) => setAccount((before) => (before && before.version > next.version ? before : { ...before, ...next }));
  useEffect(() => void (loaded.data && advance(loaded.data)), [loaded.data]);
  useInterval(REFRESH_MS, () => loaded.isLoading || loaded.reload());
  const onReceipt = ({ version, status, balance, available }) => {
    advance({ version, status, balance, available });
    loaded.reload();
  };
  return { account: account?.account_id ? account : null, error: loaded.error, reload: loaded.reload, onReceipt };
}

function AccountHeader({ id, account, isHistorical }) {
  return html`<div class="account-head">
    <div>
      <h1 tabindex="-1">${isHistorical ? 'Account (historical view)' : 'Account'}</h1>
      <p class="id break">${id} <${CopyButton} text=${id} /></p>
      ${account && html`<p class="name"><${OwnerLink} owner=${account.owner} /></p>`}
    </div>
    ${account && html`<div class="balance">
      <p class="balance-amount" data-version=${account.version}><${Money} minor=${account.balance} currency=${account.currency} /></p>
      ${(account.available ?? account.balance) !== account.balance && html`<p class="muted">Available <${Money} minor=${account.available} currency=${account.currency} /></p>`}
      <p role="status"><${Status} status=${account.status} /></p>
      <p class="muted">Opened <${Time} at=${account.opened_at} />${account.closed_at && html`, closed <${Time} at=${account.closed_at} />`}</p>
    </div>`}
  </div>`;
}

function CopyButton({ text }) {
  const [isCopied, setCopied] = useState(false);
  const copy = () => navigator.clipboard?.writeText(text).then(() => setCopied(true), () => {});
  return html`<button type="button" class="secondary small" onClick=${copy}>Copy ID</button> <span role="status" class="muted">${isCopied ? 'Copied' : ''}</span>`;
}

// ---- Point in time

const SLIDER_DEBOUNCE_MS = 120;
/** Selects an earlier state: a version with the slider, or a time with the date field. */
function HistoryControls({ now, shown, requested, at, isHistorical }) {
  const [draggedTo, setDraggedTo] = useState(null);
  const address = `#/accounts/${now.account_id}`;
  const version = draggedTo ?? requested ?? shown?.version ?? now.version;
  useEffect(() => {
    if (draggedTo === null) return undefined;
    const timer = setTimeout(() => (setDraggedTo(null), navigate(draggedTo >= now.version ? address : `${address}?version=${draggedTo}`, true)), SLIDER_DEBOUNCE_MS);
    return () => clearTimeout(timer);
  }, [draggedTo]);
  const when = isHistorical && shown ? formatTime(at ?? shown.last_activity_at) : 'now';
  const selectTime = (event) => {
    const time = new Date(event.target.value);
    if (!Number.isNaN(time.getTime())) navigate(`${address}?at=${encodeURIComponent(time.toISOString())}`, true);
  };
  return html`<section class=${`card history-controls${isHistorical ? ' historical' : ''}`} aria-label="Point in time">
    <div class="row">
      <div class="field grow"><label for="version">Version ${formatNumber(version)} of ${formatNumber(now.version)}</label>
        <input id="version" type="range" min="1" max=${now.version} step="1" value=${version} aria-valuetext=${`version ${version}, ${when}`}
          onInput=${(event) => setDraggedTo(Number(event.target.value))} /></div>
      <div class="field"><label for="as-of">State at</label>
        <input id="as-of" type="datetime-local" step="1" min=${toLocalInputValue(now.opened_at)} value=${isHistorical && shown ? toLocalInputValue(at ?? shown.last_activity_at) : ''} onChange=${selectTime} /></div>
    </div>
    <div role="status">${isHistorical && html`<p class="notice historical"><strong>Historical view${shown ? html`: version ${formatNumber(shown.version)}, ${when}` : ''}.</strong> ${' '}<a href=${address}>Show current state</a></p>`}</div>
  </section>`;
}

// ---- Transactions and events

/** Refreshes a list of the current state when the account has a new version. */
function useRefresh(list, account, isHistorical) {
  const refreshedVersion = useRef(account.version);
  useEffect(() => {
    const before = refreshedVersion.current;
    refreshedVersion.current = account.version;
    // After a failure, the next poll of the account refreshes the list again.
    if (!isHistorical && account.version > before) list.refresh((row) => row.version).catch(() => (refreshedVersion.current = Math.min(refreshedVersion.current, before)));
  }, [account, isHistorical]);
}

function Transactions({ account, isHistorical }) {
  const { account_id: id, version } = account;
  const to = isHistorical ? exclusiveEnd(account.last_activity_at) : undefined;
  const list = usePages((after, signal) => read(`/v1/accounts/${id}/transactions`, { to, after, limit: PAGE_ROWS }, { signal }), [id, to]);
  useRefresh(list, account, isHistorical);
  // A later version can have the same timestamp.
  const rows = isHistorical ? list.rows.filter((row) => row.version <= version) : list.rows;
  return html`<section class="card" aria-labelledby="transactions"><h2 id="transactions">Transactions <span class="muted">${formatNumber(account.transaction_count)}</span></h2>
    <div class="table-scroll" tabindex="0" role="group" aria-label="Transactions">
    <table>
      <caption class="visually-hidden">Transactions, newest first</caption>
      <thead><tr><th scope="col">Time</th><th scope="col">Type</th><th scope="col" class="end">Amount</th><th scope="col" class="end">Balance after</th><th scope="col">Reference</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.version}>
        <td><${Time} at=${row.recorded_at} /></td>
        <td>${transactionLabel(row.kind)}${row.counterparty_account_id && html` ${isDebit(row.kind) ? 'to' : 'from'} <${AccountLink} id=${row.counterparty_account_id} />`}</td>
        <td class=${`end ${isDebit(row.kind) ? 'debit' : 'credit'}`}><${Money} minor=${row.amount} currency=${account.currency} sign=${isDebit(row.kind) ? '−' : '+'} /></td>
        <td class="end"><${Money} minor=${row.balance_after} currency=${account.currency} /></td>
        <td class="text">${row.reference}</td>
      </tr>`)}</tbody>
    </table></div>
    ${!list.isLoading && !list.error && !list.next && rows.length === 0 && html`<p class="muted">No transactions.</p>`}
    <${ListFooter} list=${list} itemsLabel="transactions" />
  </section>`;
}

/** The events of the account, newest first. The API lists them oldest first, so pages are counted down from the last version. */
function Events({ account, currentVersion, isHistorical }) {
  const { account_id: id, version } = account;
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
    if (currentVersion <= AUTO_VERIFY_EVENTS_MAX) verify();
  }, [id]);
  const isVerified = (event) => verification.result?.verified && event.version <= verification.result.events;
  return html`<section class="card" aria-labelledby="events">
    <div class="heading"><h2 id="events">Events</h2><${VerificationStatus} verification=${verification} verify=${verify} /></div>
    <div class="table-scroll" tabindex="0" role="group" aria-label="Events">
    <table class="events">
      <caption class="visually-hidden">Events, newest first</caption>
      <thead><tr><th scope="col" class="end"><span class="visually-hidden">Version</span><span aria-hidden="true">#</span></th><th scope="col">Event</th><th scope="col" class="end">Amount</th><th scope="col">User</th><th scope="col">Time</th><th scope="col">Hash</th></tr></thead>
      <tbody>${list.rows.map((event) => html`<${EventRow} key=${event.id} event=${event} currency=${account.currency} isVerified=${isVerified(event)} />`)}</tbody>
    </table></div>
    <${ListFooter} list=${list} itemsLabel="events" />
  </section>`;
}

function EventRow({ event, currency, isVerified }) {
  const amount = amountOf(event);
  const otherAccount = counterparty(event);
  return html`<tr>
    <td class="end">${formatNumber(event.version)}</td>
    <td class="text">${eventLabel(event.type)}${otherAccount && html` ${event.data.to ? 'to' : 'from'} <${AccountLink} id=${otherAccount} />`} <span class="muted">${eventDetails(event)}</span></td>
    <td class="end">${amount && html`<${Money} ...${amount} currency=${currency} />`}</td>
    <td class="name">${event.metadata.user_id}</td>
    <td><${Time} at=${event.recorded_at} /></td>
    <td class="hash"><span class="id" title=${event.hash}>${event.hash.slice(0, 12)}…</span>${isVerified && html` <span class="good-text" role="img" aria-label="verified" title="The hash chain and the view match">✓</span>`}</td>
  </tr>`;
}

/** The result of verifying the account, and the button to verify it. */
function VerificationStatus({ verification: { isRunning, result, error }, verify }) {
  const text = isRunning ? 'Verifying…' : result?.verified ? `✓ Verified: ${formatNumber(result.events)} events` : result ? `✗ Verification failed: ${result.finding}` : '';
  return html`<p role="status" class=${`state ${result ? (result.verified ? 'live' : 'broken') : ''}`}>${text}</p>
    ${error && html`<p class="error">${error.message}</p>`}
    ${!isRunning && html`<button type="button" class="secondary" onClick=${verify}>${result ? 'Verify again' : 'Verify'}</button>`}`;
}
