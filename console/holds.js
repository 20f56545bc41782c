// The tab with the holds of an account, and the drawer in which one is captured or voided.

import { AccountLink, Drawer, ErrorNotice, ListFooter, Metadata, Money, Status, Time, html, useEffect, useLoad, usePages } from './components.js';
import { read } from './api.js';
import { CaptureHoldForm, VoidHoldForm } from './hold_forms.js';
import { permissions } from './permissions.js';
import { accountAddress, navigate } from './route.js';

const PAGE_ROWS = 25;
const STATUSES = ['active', 'captured', 'voided', 'expired'];

export function Holds({ account, query, currency, onReceipt }) {
  const { account_id: id, version, held } = account;
  const list = usePages((after, signal) => read(`/v1/accounts/${id}/holds`, { status: query.status, after, limit: PAGE_ROWS }, { signal }), [id, query.status]);
  // A hold can end without a new row, so the whole first page is read again when the account changes.
  useEffect(() => void (list.isLoading || list.reload()), [version, held]);
  const address = (more) => accountAddress(id, { ...query, ...more });
  return html`<section aria-labelledby="holds"><h2 id="holds" class="visually-hidden">Holds</h2>
    <form class="filters" aria-label="Filter holds" onSubmit=${(event) => event.preventDefault()}>
      <label>Status <select value=${query.status ?? ''} onChange=${(event) => navigate(address({ status: event.target.value }), true)}><option value="">Any</option>${STATUSES.map((status) => html`<option value=${status} selected=${query.status === status}>${status[0].toUpperCase() + status.slice(1)}</option>`)}</select></label>
    </form>
    <div class=${`table-scroll${list.isOutdated ? ' stale' : ''}`} tabindex="0" role="group" aria-label="Holds">
    <table>
      <caption class="visually-hidden">Holds, newest first</caption>
      <thead><tr><th scope="col">Placed</th><th scope="col" class="end">Amount</th><th scope="col" class="end">Left</th><th scope="col">Status</th><th scope="col">Ends</th><th scope="col">Reference</th></tr></thead>
      <tbody>${list.rows.map((hold) => html`<tr key=${hold.hold_id}>
        <td><a class="row-link" href=${address({ hold: hold.hold_id })}><${Time} at=${hold.placed_at} /><span class="visually-hidden">, details of this hold</span></a></td>
        <td class="end"><${Money} minor=${hold.amount} currency=${account.currency} /></td>
        <td class="end"><${Money} minor=${hold.remaining} currency=${account.currency} /></td>
        <td><${Status} status=${hold.status} /></td>
        <td><${Time} at=${hold.expires_at} /></td>
        <td class="text">${hold.reference}</td>
      </tr>`)}</tbody>
    </table></div>
    ${!list.isLoading && !list.error && !list.next && list.rows.length === 0 && html`<p class="muted">${query.status ? 'No holds match.' : 'No holds.'}</p>`}
    <${ListFooter} list=${list} itemsLabel="holds" />
    ${query.hold && html`<${HoldDrawer} account=${account} currency=${currency} holdId=${query.hold} close=${() => navigate(address({ hold: undefined }), true)} onReceipt=${onReceipt} />`}
  </section>`;
}

function HoldDrawer({ account, currency, holdId, close, onReceipt }) {
  const { account_id: id, version } = account;
  const loaded = useLoad((signal) => read(`/v1/accounts/${id}/holds/${holdId}`, {}, { signal }), [id, holdId, version]);
  const hold = loaded.data;
  const forms = { hold, account, currency, onReceipt };
  return html`<${Drawer} id="hold-drawer" title="Hold" close=${close}>
    <${ErrorNotice} error=${loaded.error} retry=${loaded.reload} />
    ${hold && html`<dl class="facts">
      <dt>Status</dt><dd><span role="status"><${Status} status=${hold.status} /></span></dd>
      <dt>Amount</dt><dd><${Money} minor=${hold.amount} currency=${account.currency} /></dd>
      <dt>Captured</dt><dd><${Money} minor=${hold.captured} currency=${account.currency} /></dd>
      <dt>Left</dt><dd><${Money} minor=${hold.remaining} currency=${account.currency} /></dd>
      <dt>Placed</dt><dd><${Time} at=${hold.placed_at} /></dd>
      <dt>Ends</dt><dd><${Time} at=${hold.expires_at} /></dd>
      ${hold.reference && html`<dt>Reference</dt><dd>${hold.reference}</dd>`}
      <dt>Hold ID</dt><dd class="id break">${hold.hold_id}</dd>
      <dt>Account</dt><dd><${AccountLink} id=${id} /></dd>
    </dl><${Metadata} pairs=${hold.metadata} />`}
    ${hold?.status === 'active' && permissions.holds() && html`<div class="drawer-actions">
      <details name="hold-action"><summary>Capture</summary><${CaptureHoldForm} ...${forms} /></details>
      <details name="hold-action"><summary>Void</summary><${VoidHoldForm} ...${forms} /></details>
    </div>`}
  </${Drawer}>`;
}
