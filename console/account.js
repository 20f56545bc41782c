// The page of one account: its current state, or its state at an earlier version or time.

import { CopyButton, ErrorNotice, Metadata, Money, OwnerLink, StaleNotice, Status, Time, html, shortId, useCurrencies, useEffect, useInterval, useLoad, useRef, useState } from './components.js';
import { read } from './api.js';
import { Actions } from './actions.js';
import { BalanceChart } from './balance_chart.js';
import { Events, findLastEvent } from './events.js';
import { HistoryControls } from './history.js';
import { Holds } from './holds.js';
import { Limits } from './limits.js';
import { MovementDrawer } from './movement_drawer.js';
import { permissions } from './permissions.js';
import { accountAddress, setTitle } from './route.js';
import { Transactions } from './transactions.js';

const REFRESH_MS = 2_000;

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
  useEffect(() => setTitle(now ? `${now.owner} ${shortId(id)}` : 'Account'), [now?.owner]);
  // Some identity providers use UUIDs as subjects, so the ID of a missing account may be an owner.
  if (!now) return html`<${AccountHeader} id=${id} /><${ErrorNotice} error=${current.error} retry=${current.reload} />
    ${current.error?.status === 404 && html`<p><${OwnerLink} owner=${id}>Accounts of owner ${id}</${OwnerLink}></p>`}`;
  const currency = list?.get(now.currency);
  const isStale = !isHistorical && current.error !== null;
  return html`<${AccountHeader} id=${id} account=${shown} isHistorical=${showsHistory} isStale=${isStale} />
    ${!isHistorical && html`<${StaleNotice} resource=${current} />`}
    ${shown && html`<${StatusBanner} account=${shown} />`}
    <${HistoryControls} now=${now} shown=${shown} requested=${version} query=${query} isHistorical=${showsHistory} />
    ${isHistorical && html`<${ErrorNotice} error=${historical.error} />`}
    ${shown && html`<div class=${`account${historical.isLoading && isHistorical ? ' stale' : ''}`}>
      <div>${isHistorical
        ? html`<section class="card" aria-labelledby="actions"><h2 id="actions">Actions</h2><p>Actions are not available in the historical view. <a href=${accountAddress(id)}>Show current state</a></p></section>`
        : html`<${Actions} account=${now} currency=${currency} onReceipt=${current.onReceipt} />`}</div>
      <div>
        <section class="card" aria-labelledby="balance"><h2 id="balance">Balance over time</h2><${BalanceChart} account=${shown} currency=${currency} isHistorical=${showsHistory} /></section>
        <${Tabs} query=${query} account=${shown} now=${now} currency=${currency} isHistorical=${showsHistory} onReceipt=${current.onReceipt} />
      </div>
    </div>`}
    ${query.transaction && html`<${MovementDrawer} account=${now} query=${query} currency=${currency} onReceipt=${current.onReceipt} />`}`;
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
  return { ...loaded, account: account?.account_id ? account : null, onReceipt };
}

function AccountHeader({ id, account, isHistorical, isStale }) {
  return html`<div class=${`account-head${isStale ? ' stale' : ''}`}>
    <div>
      <h1 tabindex="-1">${isHistorical ? 'Account (historical view)' : 'Account'}</h1>
      <p class="id break">${id} <${CopyButton} text=${id} /></p>
      ${account && html`<p class="name"><${OwnerLink} owner=${account.owner} /></p>
        <p class="muted"><span role="status"><${Status} status=${account.status} /></span> Opened <${Time} at=${account.opened_at} />${account.closed_at && html`, closed <${Time} at=${account.closed_at} />`}</p>
        <${Metadata} pairs=${account.metadata} />`}
    </div>
    ${account && html`<dl class="figures">
      <div><dt>Balance</dt><dd class="balance-amount" data-version=${account.version}><${Money} minor=${account.balance} currency=${account.currency} /></dd></div>
      <div><dt>Available</dt><dd class="available-amount"><${Money} minor=${account.available} currency=${account.currency} /></dd></div>
      <div><dt>On hold</dt><dd><${Money} minor=${account.held} currency=${account.currency} /></dd></div>
      ${account.overdraft > 0 && html`<div><dt>Overdraft</dt><dd><${Money} minor=${account.overdraft} currency=${account.currency} /></dd></div>`}
    </dl>`}
  </div>`;
}

const STATUS_EVENTS = { frozen: 'AccountFrozen', closed: 'AccountClosed' };
const STATUS_TEXTS = { frozen: 'This account is frozen.', closed: 'This account is closed permanently.' };

/** Why an account cannot be used, who decided it and when, as far as the token permits reading events. */
function StatusBanner({ account: { account_id: id, status, version } }) {
  const type = STATUS_EVENTS[status];
  const change = useLoad((signal) => (type && permissions.audit() ? findLastEvent(id, version, type, signal) : Promise.resolve()), [id, type]);
  if (!type) return null;
  const event = change.data;
  return html`<div class=${`notice banner ${status === 'frozen' ? 'warn' : ''}`}><strong>${STATUS_TEXTS[status]}</strong>
    ${event && html` ${event.data.reason ? html`Reason: ${event.data.reason}. ` : 'No reason was given. '}By ${event.metadata.user_id}, <${Time} at=${event.recorded_at} />.`}
  </div>`;
}

const TABS = { transactions: 'Transactions', holds: 'Holds', limits: 'Limits', events: 'Events' };

function Tabs(props) {
  const { query, account, isHistorical } = props;
  const { account_id: id } = account;
  const shown = TABS[query.tab] ? query.tab : 'transactions';
  const names = Object.keys(TABS).filter((name) => name !== 'events' || permissions.audit());
  const address = (tab) => accountAddress(id, { ...query, transaction: undefined, on: undefined, hold: undefined, tab: tab === 'transactions' ? undefined : tab });
  const isCurrentOnly = isHistorical && (shown === 'holds' || shown === 'limits');
  return html`<section class="card tab-card">
    <nav class="tabs" aria-label="Details of the account">${names.map((name) => html`<a key=${name} href=${address(name)} aria-current=${shown === name ? 'true' : undefined}>${TABS[name]}</a>`)}</nav>
    ${isCurrentOnly && html`<p class="muted">${TABS[shown]} are shown for the current state only. <a href=${accountAddress(id, { tab: shown })}>Show current state</a></p>`}
    ${shown === 'transactions' && html`<${Transactions} ...${props} />`}
    ${shown === 'holds' && !isCurrentOnly && html`<${Holds} ...${props} />`}
    ${shown === 'limits' && !isCurrentOnly && html`<${Limits} ...${props} />`}
    ${shown === 'events' && html`<${Events} ...${props} />`}
  </section>`;
}
