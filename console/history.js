// The controls that select an earlier state of an account: a version with the slider, or a time with the date field.

import { formatNumber, formatTime, html, useEffect, useState } from './components.js';
import { toLocalInputValue } from './datetime.js';
import { accountAddress, navigate } from './route.js';

const SLIDER_DEBOUNCE_MS = 120;

export function HistoryControls({ now, shown, requested, query, isHistorical }) {
  const [draggedTo, setDraggedTo] = useState(null);
  const { tab, at } = query;
  const address = (moment = {}) => accountAddress(now.account_id, { tab, ...moment });
  const version = draggedTo ?? requested ?? shown?.version ?? now.version;
  useEffect(() => {
    if (draggedTo === null) return undefined;
    const timer = setTimeout(() => (setDraggedTo(null), navigate(address(draggedTo >= now.version ? {} : { version: draggedTo }), true)), SLIDER_DEBOUNCE_MS);
    return () => clearTimeout(timer);
  }, [draggedTo]);
  const when = isHistorical && shown ? formatTime(at ?? shown.last_activity_at) : 'now';
  const selectTime = (event) => {
    const time = new Date(event.target.value);
    if (!Number.isNaN(time.getTime())) navigate(address({ at: time.toISOString() }), true);
  };
  return html`<section class=${`history-controls${isHistorical ? ' historical' : ''}`} aria-label="Point in time">
    <div class="compact">
      <label for="version">Version ${formatNumber(version)} of ${formatNumber(now.version)}</label>
      <input id="version" type="range" min="1" max=${now.version} step="1" value=${version} aria-valuetext=${`version ${version}, ${when}`}
        onInput=${(event) => setDraggedTo(Number(event.target.value))} />
      <label for="as-of">State at</label>
      <input id="as-of" type="datetime-local" step="1" min=${toLocalInputValue(now.opened_at)} value=${isHistorical && shown ? toLocalInputValue(at ?? shown.last_activity_at) : ''} onChange=${selectTime} />
    </div>
    <div role="status">${isHistorical && html`<p class="notice historical"><strong>Historical view${shown ? html`: version ${formatNumber(shown.version)}, ${when}` : ''}.</strong> ${' '}<a href=${address()}>Show current state</a></p>`}</div>
  </section>`;
}
