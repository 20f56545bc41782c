// The page for batches: commands pasted from a spreadsheet, checked by a dry run, and sent together.

import { AccountLink, Field, Money, html, inputProps, useCurrencies, useEffect, useMemo, useRef, useState } from './components.js';
import { request, toApiError } from './api.js';
import { EXAMPLE, COLUMNS, readCommands } from './batch_commands.js';
import { FieldError, Form, useForm } from './form.js';
import { describe } from './problems.js';

export function Batches() {
  const currencies = useCurrencies();
  const [text, setText] = useState('');
  const [mode, setMode] = useState('atomic');
  const [results, setResults] = useState(null);
  const read = useMemo(() => (currencies && text.trim() ? readCommands(text, currencies) : { rows: [], errors: [] }), [text, currencies]);
  const form = useForm({
    async submit(values, { send }) {
      const commands = requireCommands(read);
      setResults(null);
      const isAtomic = mode === 'atomic';
      const items = isAtomic ? commands : commands.map((command) => ({ ...command, idempotency_key: crypto.randomUUID() }));
      const label = `Batch of ${commands.length} commands`;
      try {
        const receipt = await send({ path: '/v1/batches', body: { mode, commands: items }, hasItemKeys: !isAtomic, label });
        setResults({ rows: read.rows, outcomes: outcomesOf(receipt, mode) });
        // What was sent does not stay in the field, so that it is not sent again by mistake.
        setText('');
        return summary(outcomesOf(receipt, mode));
      } catch (error) {
        if (error.index !== undefined) setResults({ rows: read.rows, outcomes: refusedAt(commands.length, error) });
        throw error;
      }
    },
  });
  const check = async () => {
    form.clearErrors();
    try {
      const receipt = await dryRun(mode, requireCommands(read));
      setResults({ isDryRun: true, rows: read.rows, outcomes: outcomesOf(receipt, mode) });
    } catch (error) {
      setResults({ isDryRun: true, error, rows: read.rows, outcomes: error.index === undefined ? [] : refusedAt(read.rows.length, error) });
    }
  };
  const change = (next) => (setText(next), setResults(null), form.clearErrors());
  return html`<h1 tabindex="-1">Batch</h1>
    <section class="card" aria-labelledby="batch-form"><h2 id="batch-form">Commands</h2>
      <p class="muted">Paste rows from a spreadsheet, or choose a CSV file. The first row names the columns: ${COLUMNS.map((name, n) => html`${n ? ', ' : ''}<code>${name}</code>`)}. Amounts are in major units and need the column <code>currency</code>.</p>
      <${Form} form=${form} button=${`Carry out ${read.rows.length || ''} commands`.replace('  ', ' ')}>
        <p class="buttons"><${FileInput} onText=${change} /><button type="button" class="secondary" onClick=${() => change(EXAMPLE)}>Insert an example</button></p>
        <${Field} id="batch-text" label="Rows" error=${form.errors.rows}>
          <textarea ...${inputProps('batch-text', form.errors.rows)} name="rows" rows="8" spellcheck="false" class="id" value=${text} onInput=${(event) => change(event.target.value)}></textarea>
        </${Field}>
        <${RowErrors} errors=${read.errors} />
        <fieldset class="choice plain"><legend class="visually-hidden">How the commands are carried out</legend>
          ${modeOption('atomic', 'All or none', mode, setMode)} ${modeOption('each', 'Each by itself', mode, setMode)}
        </fieldset>
        <p class="buttons"><button type="button" class="secondary" onClick=${check}>Check without carrying out</button></p>
      </${Form}>
    </section>
    ${results && html`<${Results} ...${results} />`}`;
}

const modeOption = (value, label, mode, setMode) => html`<label><input type="radio" name="mode" value=${value} checked=${mode === value} onChange=${() => setMode(value)} /> ${label}</label>`;

function FileInput({ onText }) {
  const input = useRef(null);
  const onChange = async () => {
    const [file] = input.current.files;
    if (file) onText(await file.text());
    input.current.value = '';
  };
  return html`<label class="file">Choose a file <input ref=${input} type="file" accept=".csv,.tsv,.txt,text/csv" onChange=${onChange} /></label>`;
}

function RowErrors({ errors }) {
  const shown = errors.slice(0, 10);
  return html`<div role="status">${shown.length > 0 && html`<div class="notice bad"><ul class="plain-list">${shown.map(({ line, text }) => html`<li key=${`${line} ${text}`}>Line ${line}: ${text}</li>`)}</ul>
    ${errors.length > shown.length && html`<p>${errors.length - shown.length} more lines have errors.</p>`}</div>`}</div>`;
}

function requireCommands({ rows, errors }) {
  if (errors.length > 0) throw new FieldError('rows', 'Correct the lines with errors first.');
  if (rows.length === 0) throw new FieldError('rows', 'Enter at least one command.');
  return rows.map(({ command }) => command);
}

/** What the batch would do. Nothing is recorded, so a lost response needs no retry. */
async function dryRun(mode, commands) {
  const options = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ mode, commands }) };
  const response = await request('/v1/batches?dry_run=true', options);
  if (!response.ok) throw await toApiError(response);
  return response.json();
}

/** One outcome for each command: its receipt, or its problem as an error. */
const outcomesOf = ({ results }, mode) =>
  results.map((result) => (mode === 'atomic' ? { receipt: result } : result.problem ? { error: problemOf(result.problem) } : { receipt: result.receipt, isReplay: result.replayed }));

const problemOf = (problem) => Object.assign(new Error(problem.detail), problem, { fields: problem.errors ?? [], accountId: problem.account_id, resetsAt: problem.resets_at });

const refusedAt = (count, error) => Array.from({ length: count }, (_, n) => (n === error.index ? { error } : { isNotDone: true }));

function summary(outcomes) {
  const refused = outcomes.filter(({ error }) => error).length;
  return `Carried out: ${outcomes.length - refused}.${refused > 0 ? ` Refused: ${refused}.` : ''}`;
}

function Results({ rows, outcomes, isDryRun, error }) {
  const heading = useRef(null);
  useEffect(() => heading.current.focus(), [outcomes]);
  return html`<section class="card" aria-labelledby="batch-results"><h2 id="batch-results" tabindex="-1" ref=${heading}>${isDryRun ? 'What would happen' : 'Results'}</h2>
    ${error && html`<p class="notice bad">${describe(error)}</p>`}
    ${outcomes.length > 0 && html`<div class="table-scroll" tabindex="0" role="group" aria-label="Results"><table>
      <caption class="visually-hidden">One row for each command</caption>
      <thead><tr><th scope="col" class="end">Line</th><th scope="col">Command</th><th scope="col">Account</th><th scope="col">Result</th><th scope="col" class="end">Balance</th></tr></thead>
      <tbody>${outcomes.map((outcome, n) => html`<${ResultRow} key=${n} row=${rows[n]} outcome=${outcome} isDryRun=${isDryRun} />`)}</tbody>
    </table></div>`}
  </section>`;
}

function ResultRow({ row, outcome: { receipt, error, isReplay, isNotDone }, isDryRun }) {
  const account = receipt?.from ?? receipt;
  const id = account?.account_id ?? row.command.account_id ?? row.command.from;
  const text = isNotDone ? 'Not carried out' : isDryRun ? 'Would be carried out' : isReplay ? 'Was already carried out' : 'Carried out';
  return html`<tr><td class="end">${row.line}</td><td>${row.command.command.replaceAll('_', ' ')}</td>
    <td>${id && (receipt && !isDryRun ? html`<${AccountLink} id=${id} />` : html`<span class="id">…${id.slice(-12)}</span>`)}</td>
    <td class="text">${error ? html`<span class="error">${describe(error, { currency: row.currency })}</span>` : text}</td>
    <td class="end">${account?.balance !== undefined && html`<${Money} minor=${account.balance} currency=${account.currency} />`}</td></tr>`;
}
