// The tab with the limits of an account: how much of each is used, and the form that replaces them.

import { ErrorNotice, Money, Time, html, useLoad, useState } from './components.js';
import { read } from './api.js';
import { etag } from './fields.js';
import { AmountField, Form, useForm } from './form.js';
import { decimal } from './money.js';
import { permissions } from './permissions.js';

const NAMES = {
  overdraft: ['Overdraft', 'How far the balance may go below zero'],
  per_movement: ['Single movement', 'The largest withdrawal, transfer out or hold'],
  out_per_day: ['Out per day', 'What may leave the account in a UTC day'],
  out_per_month: ['Out per month', 'What may leave the account in a UTC month'],
};

export function Limits({ account, currency, onReceipt }) {
  const { account_id: id, version } = account;
  const limits = useLoad((signal) => read(`/v1/accounts/${id}/limits`, {}, { signal }), [id, version]);
  const [isEditing, setEditing] = useState(false);
  const mayEdit = permissions.limits() && account.status !== 'closed';
  return html`<section aria-labelledby="limits"><h2 id="limits" class="visually-hidden">Limits</h2>
    <${ErrorNotice} error=${limits.error} retry=${limits.reload} />
    ${limits.data && html`<${LimitTable} limits=${limits.data} currency=${account.currency} />`}
    ${mayEdit && limits.data && currency && (isEditing
      ? html`<${LimitsForm} account=${account} currency=${currency} limits=${limits.data} onReceipt=${onReceipt} close=${() => setEditing(false)} />`
      : html`<p class="buttons"><button type="button" class="secondary" onClick=${() => setEditing(true)}>Change limits</button></p>`)}
  </section>`;
}

function LimitTable({ limits, currency }) {
  const money = (minor) => html`<${Money} minor=${minor} currency=${currency} />`;
  return html`<div class="table-scroll" tabindex="0" role="group" aria-label="Limits"><table class="limits">
    <caption class="visually-hidden">Limits of the account and what is used of them</caption>
    <thead><tr><th scope="col">Limit</th><th scope="col" class="end">Maximum</th><th scope="col" class="end">Used</th><th scope="col" class="end">Left</th><th scope="col">Starts again</th></tr></thead>
    <tbody>${Object.entries(NAMES).map(([name, [label, meaning]]) => {
      const limit = limits[name];
      return html`<tr key=${name}><th scope="row">${label}<span class="hint">${meaning}</span></th>
        ${limit
          ? html`<td class="end">${money(limit.maximum)}</td><td class="end">${name === 'per_movement' ? '–' : money(limit.used)}</td><td class="end">${name === 'per_movement' ? '–' : money(limit.remaining)}</td><td>${limit.resets_at ? html`<${Time} at=${limit.resets_at} />` : '–'}</td>`
          : html`<td class="end muted">${name === 'overdraft' ? 'none' : 'no limit'}</td><td class="end">–</td><td class="end">–</td><td>–</td>`}
      </tr>`;
    })}</tbody>
  </table></div>`;
}

/** All limits are replaced at once, so the form starts with those that are set. */
function LimitsForm({ account, currency, limits, onReceipt, close }) {
  const form = useForm({
    fieldOf: { balance_limit_exceeded: 'overdraft', invalid_amount: 'overdraft' },
    context: () => ({ currency }),
    async submit(values, { readAmount, send }) {
      const entered = Object.keys(NAMES).filter((name) => values[name].trim() !== '');
      const body = Object.fromEntries(entered.map((name) => [name, readAmount(name, values[name], currency, true)]));
      const receipt = await send({ method: 'PUT', path: `/v1/accounts/${account.account_id}/limits`, body, ifMatch: etag(account), label: 'Change limits' });
      onReceipt(receipt);
      close();
    },
  });
  return html`<${Form} form=${form} button="Save limits">
    <div class="row">${Object.entries(NAMES).map(([name, [label]]) => html`<${AmountField} key=${name} id=${`limit-${name}`} name=${name} label=${label}
      initial=${limits[name] ? decimal(limits[name].maximum, currency.digits) : ''} hint=${name === 'overdraft' ? 'Empty: none' : 'Empty: no limit'} form=${form} currency=${currency} zero />`)}</div>
    <button type="button" class="secondary beside" onClick=${close}>Cancel</button>
  </${Form}>`;
}
