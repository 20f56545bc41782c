// One account: now, or as it was at any moment since its opening.

import { AccountLink, Failure, Money, More, OwnerLink, Status, Time, html, number, timeText, useCurrencies, useEffect, useEvery, useLoad, usePages, useRef, useState } from './parts.js';
import { read } from './api.js';
import { Actions } from './actions.js';
import { Balance } from './balance.js';
import { behind, local } from './moment.js';
import { go } from './route.js';
import { counterparty, detail, isOut, kindWord, moved, word } from './words.js';

const REFRESH_MS = 2_000;
const ROWS = 25;
/** An account with more events is verified only where somebody asks for it: it takes a second for some 100 000. */
const VERIFY_UNASKED_EVENTS_MAX = 5_000;

export function Account({ id, query }) {
  const list = useCurrencies();
  const present = usePresent(id);
  const now = present.account;
  const version = /^\d+$/.test(query.version ?? '') ? Number(query.version) : undefined;
  const isPast = version !== undefined || query.at !== undefined;
  const past = useLoad(
    (signal) => (isPast ? read(`/v1/accounts/${id}`, { as_of_version: version, as_of: version === undefined ? query.at : undefined }, { signal }) : Promise.resolve()),
    [id, version, query.at],
  );
  // What was shown stays until what is wanted has come.
  const last = useRef({ isThere: false });
  if (!isPast) last.current = { shown: now, isThere: false };
  else if (past.error) last.current = { isThere: true };
  else if (past.data) last.current = { shown: past.data, isThere: true };
  const { shown, isThere } = last.current;
  // Some providers' names for people look like an account's id.
  if (!now) return html`<${Head} id=${id} /><${Failure} error=${present.error} retry=${present.reload} />
    ${present.error?.status === 404 && html`<p><${OwnerLink} owner=${id}>Accounts of owner ${id}</${OwnerLink}></p>`}`;
  const currency = list?.get(now.currency);
  return html`<${Head} id=${id} account=${shown} isPast=${isThere} />
    <${Moments} now=${now} shown=${shown} wanted=${version} at=${query.at} isPast=${isThere} />
    ${isPast && html`<${Failure} error=${past.error} />`}
    ${!isPast && html`<${Failure} error=${present.error} />`}
    ${shown && html`<div class=${`account${past.isLoading && isPast ? ' stale' : ''}`}>
      <div>${isPast
        ? html`<section class="card" aria-labelledby="do"><h2 id="do">At the counter</h2><p>This is the past. <a href=${`#/accounts/${id}`}>Back to now</a> to do something.</p></section>`
        : html`<${Actions} account=${now} currency=${currency} onReceipt=${present.onReceipt} />`}</div>
      <div>
        <section class="card" aria-labelledby="balance"><h2 id="balance">Balance over time</h2><${Balance} account=${shown} currency=${currency} isPast=${isThere} /></section>
        <${Transactions} account=${shown} isPast=${isThere} />
        <${Events} account=${shown} newest=${now.version} isPast=${isThere} />
      </div>
    </div>`}`;
}

/** The account as it is. What is older than what was shown is never shown again. */
function usePresent(id) {
  const [account, setAccount] = useState(null);
  const loaded = useLoad((signal) => read(`/v1/accounts/${id}`, {}, { signal }), [id]);
  const advance = (next) => setAccount((before) => (before && before.version > next.version ? before : { ...before, ...next }));
  useEffect(() => void (loaded.data && advance(loaded.data)), [loaded.data]);
  useEvery(REFRESH_MS, () => loaded.isLoading || loaded.reload());
  const onReceipt = ({ version, status, balance }) => {
    advance({ version, status, balance });
    loaded.reload();
  };
  return { account: account?.account_id ? account : null, error: loaded.error, reload: loaded.reload, onReceipt };
}

function Head({ id, account, isPast }) {
  return html`<div class="account-head">
    <div>
      <h1 tabindex="-1">${isPast ? 'Account as it was' : 'Account'}</h1>
      <p class="id whole">${id} <${Copy} text=${id} /></p>
      ${account && html`<p class="by"><${OwnerLink} owner=${account.owner} /></p>`}
    </div>
    ${account && html`<div class="balance">
      <p class="figure" data-version=${account.version}><${Money} minor=${account.balance} currency=${account.currency} /></p>
      <p role="status"><${Status} status=${account.status} /></p>
      <p class="faint">Opened <${Time} at=${account.opened_at} />${account.closed_at && html`, closed <${Time} at=${account.closed_at} />`}</p>
    </div>`}
  </div>`;
}

function Copy({ text }) {
  const [isCopied, setCopied] = useState(false);
  const copy = () => navigator.clipboard?.writeText(text).then(() => setCopied(true), () => {});
  return html`<button type="button" class="quiet small" onClick=${copy}>Copy the id</button> <span role="status" class="faint">${isCopied ? 'Copied' : ''}</span>`;
}

// ---- Time

const DRAG_MS = 120;
/** Takes the page back: by versions with a slider, or to a moment by its date. */
function Moments({ now, shown, wanted, at, isPast }) {
  const [drag, setDrag] = useState(null);
  const address = `#/accounts/${now.account_id}`;
  const version = drag ?? wanted ?? shown?.version ?? now.version;
  useEffect(() => {
    if (drag === null) return undefined;
    const timer = setTimeout(() => (setDrag(null), go(drag >= now.version ? address : `${address}?version=${drag}`, true)), DRAG_MS);
    return () => clearTimeout(timer);
  }, [drag]);
  const when = isPast && shown ? timeText(at ?? shown.last_activity_at) : 'now';
  const choose = (event) => {
    const time = new Date(event.target.value);
    if (!Number.isNaN(time.getTime())) go(`${address}?at=${encodeURIComponent(time.toISOString())}`, true);
  };
  return html`<section class=${`card moments${isPast ? ' past' : ''}`} aria-label="Time">
    <div class="row">
      <div class="field grow"><label for="version">Version ${number(version)} of ${number(now.version)}</label>
        <input id="version" type="range" min="1" max=${now.version} step="1" value=${version} aria-valuetext=${`version ${version}, ${when}`}
          onInput=${(event) => setDrag(Number(event.target.value))} /></div>
      <div class="field"><label for="moment">As it was at</label>
        <input id="moment" type="datetime-local" step="1" min=${local(now.opened_at)} value=${isPast && shown ? local(at ?? shown.last_activity_at) : ''} onChange=${choose} /></div>
    </div>
    <div role="status">${isPast && html`<p class="notice past"><strong>You see the past${shown ? html`: version ${number(shown.version)}, ${when}` : ''}.</strong> ${' '}<a href=${address}>Back to now</a></p>`}</div>
  </section>`;
}

// ---- What happened

/** Keeps a list of the present up to date as the account goes on. */
function useRefresh(list, account, isPast) {
  const seen = useRef(account.version);
  useEffect(() => {
    const before = seen.current;
    seen.current = account.version;
    // What has failed is asked for again when the account is next read.
    if (!isPast && account.version > before) list.refresh((row) => row.version).catch(() => (seen.current = Math.min(seen.current, before)));
  }, [account, isPast]);
}

function Transactions({ account, isPast }) {
  const { account_id: id, version } = account;
  const to = isPast ? behind(account.last_activity_at) : undefined;
  const list = usePages((after, signal) => read(`/v1/accounts/${id}/transactions`, { to, after, limit: ROWS }, { signal }), [id, to]);
  useRefresh(list, account, isPast);
  // What was recorded at the same time may be a later version.
  const rows = isPast ? list.rows.filter((row) => row.version <= version) : list.rows;
  return html`<section class="card" aria-labelledby="transactions"><h2 id="transactions">Transactions <span class="faint">${number(account.transaction_count)}</span></h2>
    <div class="wide" tabindex="0" role="group" aria-label="Transactions">
    <table>
      <caption class="unseen">Movements of money, newest first</caption>
      <thead><tr><th scope="col">Time</th><th scope="col">What</th><th scope="col" class="end">Amount</th><th scope="col" class="end">Balance after</th><th scope="col">Reference</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.version}>
        <td><${Time} at=${row.recorded_at} /></td>
        <td>${kindWord(row.kind)}${row.counterparty_account_id && html` ${isOut(row.kind) ? 'to' : 'from'} <${AccountLink} id=${row.counterparty_account_id} />`}</td>
        <td class=${`end ${isOut(row.kind) ? 'out' : 'in'}`}><${Money} minor=${row.amount} currency=${account.currency} sign=${isOut(row.kind) ? '−' : '+'} /></td>
        <td class="end"><${Money} minor=${row.balance_after} currency=${account.currency} /></td>
        <td class="text">${row.reference}</td>
      </tr>`)}</tbody>
    </table></div>
    ${!list.isLoading && !list.error && rows.length === 0 && html`<p class="faint">No money has moved.</p>`}
    <${More} list=${list} what="transactions" />
  </section>`;
}

/** The events as recorded, newest first: the API tells them oldest first, so pages are counted back from the last version. */
function Events({ account, newest, isPast }) {
  const { account_id: id, version } = account;
  const top = useRef(version);
  top.current = version;
  const page = async (upper = top.current, signal) => {
    const after = Math.max(0, upper - ROWS);
    const { data } = await read(`/v1/accounts/${id}/events`, { after_version: after, limit: upper - after }, { signal, fresh: false });
    return { data: data.reverse(), next: after > 0 ? after : null };
  };
  const list = usePages(page, [id, isPast ? version : 'now']);
  useRefresh(list, account, isPast);
  const [check, setCheck] = useState({});
  const verify = () => {
    setCheck({ isRunning: true });
    read(`/v1/accounts/${id}/verification`, {}, { fresh: false }).then((found) => setCheck({ found }), (error) => setCheck({ error }));
  };
  useEffect(() => {
    if (newest <= VERIFY_UNASKED_EVENTS_MAX) verify();
  }, [id]);
  const isVerified = (event) => check.found?.verified && event.version <= check.found.events;
  return html`<section class="card" aria-labelledby="events">
    <div class="heading"><h2 id="events">Events as recorded</h2><${Verdict} check=${check} verify=${verify} /></div>
    <div class="wide" tabindex="0" role="group" aria-label="Events">
    <table class="events">
      <caption class="unseen">Events, newest first</caption>
      <thead><tr><th scope="col" class="end"><span class="unseen">Version</span><span aria-hidden="true">#</span></th><th scope="col">Event</th><th scope="col" class="end">Amount</th><th scope="col">By</th><th scope="col">Time</th><th scope="col">Hash</th></tr></thead>
      <tbody>${list.rows.map((event) => html`<${EventRow} key=${event.id} event=${event} currency=${account.currency} isVerified=${isVerified(event)} />`)}</tbody>
    </table></div>
    <${More} list=${list} what="events" />
  </section>`;
}

function EventRow({ event, currency, isVerified }) {
  const money = moved(event);
  const other = counterparty(event);
  return html`<tr>
    <td class="end">${number(event.version)}</td>
    <td class="text">${word(event.type)}${other && html` ${event.data.to ? 'to' : 'from'} <${AccountLink} id=${other} />`} <span class="faint">${detail(event)}</span></td>
    <td class="end">${money && html`<${Money} ...${money} currency=${currency} />`}</td>
    <td class="by">${event.metadata.user_id}</td>
    <td><${Time} at=${event.recorded_at} /></td>
    <td class="hash"><span class="id" title=${event.hash}>${event.hash.slice(0, 12)}…</span>${isVerified && html` <span class="good-text" role="img" aria-label="verified" title="The hash chain and the view agree">✓</span>`}</td>
  </tr>`;
}

/** What the check of the hash chain says. */
function Verdict({ check: { isRunning, found, error }, verify }) {
  const text = isRunning ? 'Verifying…' : found?.verified ? `✓ Verified: ${number(found.events)} events` : found ? `✗ Not in order: ${found.finding}` : '';
  return html`<p role="status" class=${`state ${found ? (found.verified ? 'live' : 'broken') : ''}`}>${text}</p>
    ${error && html`<p class="error">${error.message}</p>`}
    ${!isRunning && html`<button type="button" class="quiet" onClick=${verify}>${found ? 'Verify again' : 'Verify'}</button>`}`;
}
