// One record: its values and their evidence in the source, or its failing answers; then its calls.

const MATCHES = {
  exact: 'exact', normalised: 'other spelling', value: 'equal value', fuzzy: 'similar', image: 'from the picture', tool: 'from a look-up',
  ungrounded: 'not found', chosen: 'chosen',
};
const NUMBERS = new Set(['latency', 'in', 'cached', 'out', 'cost']);
const HUES = 8;

const isObject = (value) => Array.isArray(value) && value[0] === 'o';
const isList = (value) => Array.isArray(value) && value[0] === 'l';
const step = (key) => key.replaceAll('~', '~0').replaceAll('/', '~1');
const spelled = (path) => path.split('/').map((one) => one.replaceAll('~1', '/').replaceAll('~0', '~')).join(' › ');
const price = (cost, currency) => cost === null ? 'price unknown' : `${cost} ${currency}`;
// An answer of the batch lane has no latency of its own.
const lasted = (s) => s === 0 ? '–' : s < 1 ? `${Math.round(s * 1000)} ms` : `${s.toFixed(2)} s`;

class RecordView {
  constructor(told) {
    this.told = told;
    this.choices = new Set(told.choices);
  }

  show(record, holder, reason) {
    const { told } = this;
    this.record = record;
    this.used = new Set();
    this.corrected = new Set(record.corrected ?? []);
    this.nulled = new Set(record.nulled ?? []);
    this.confidence = new Map(Object.entries(record.confidence ?? {}));
    this.evidence = new Map();
    const hues = new Map(told.fields.map(([, key], place) => [step(key), place % HUES]));
    this.spans = [];
    for (const [path, match, quote, start, end, score] of record.evidence ?? []) {
      const one = { path, quote, start, end, score, number: this.spans.length, hue: hues.get(path.split('/')[0]) ?? 0, label: spelled(path) };
      one.match = match === 'ungrounded' && this.choices.has(path.replace(/\/\d+(?=\/|$)/g, '/*')) ? 'chosen' : match;
      if (start !== null) this.spans.push(one);
      this.evidence.set(path, one);
    }
    // A record may be nothing but its picture, which is not in the page.
    const source = record.text && record.length ? markedText(record.text, record.length, this.spans) : null;
    holder.replaceChildren(...[
      node('header', null,
        node('h3', null, foreign(record.id), record.occurrence ? node('small', null, ` · occurrence ${record.occurrence + 1}`) : null),
        node('p', { class: 'chips' },
          record.values ? node('span', { class: 'chip good' }, 'row') : node('span', { class: 'chip bad' }, record.reason),
          record.merged && node('span', { class: 'chip' }, 'answered by an identical record'),
          this.corrected.size > 0 && node('span', { class: 'chip' }, 'corrected'),
          this.nulled.size > 0 && node('span', { class: 'chip warn' }, 'set to null for want of evidence'),
          record.repaired && node('span', { class: 'chip' }, 'JSON mended'),
          node('span', { class: 'chip' }, price(record.cost, told.currency)),
          node('span', { class: 'chip' }, foreign(record.model ?? '–')))),
      record.values ? this.values() : this.failure(reason),
      node('section', { 'aria-label': 'Source' },
        node('h4', null, 'Source', source ? node('small', null, ` ${thousands(record.length)} characters`) : null),
        source ?? (record.text && record.picture ? null : this.noSource()),
        record.picture ? node('p', null, 'Picture: ', foreign(record.picture), node('small', { class: 'faint' }, ' (pictures are not in the page)')) : null),
      this.kept(), this.calls(), this.facts(),
    ].filter(Boolean));
    holder.onclick = (event) => this.pointAt(event.target.closest('mark, button.evidence'), holder);
  }

  values() {
    const { record, told } = this;
    const rows = told.fields.map(([name, key], place) => node('tr', null,
      node('th', { scope: 'row' }, node('span', { class: `swatch h${place % HUES}`, 'aria-hidden': 'true' }), foreign(name)),
      node('td', null, this.value(record.values[place], step(key)))));
    const left = [...this.evidence.keys()].filter((path) => !this.used.has(path));
    for (const path of left) {
      rows.push(node('tr', null, node('th', { scope: 'row' }, foreign(spelled(path))), node('td', null, this.badge(path))));
    }
    return node('section', { 'aria-label': 'Values' }, node('h4', null, 'Values'), node('table', { class: 'values' }, node('tbody', null, rows)));
  }

  value(value, path) {
    if (isList(value)) {
      const items = value[1];
      if (!items.length) return node('span', { class: 'null' }, 'empty list');
      if (items.every(isObject) && items.length && items.every((one) => one[1].length <= 8 && one[1].every(([, cell]) => !isList(cell) && !isObject(cell)))) {
        const heads = items[0][1].map(([key]) => key);
        return node('div', { class: 'scroll' }, node('table', { class: 'grid' },
          node('thead', null, node('tr', null, heads.map((key) => node('th', { scope: 'col' }, foreign(key))))),
          node('tbody', null, items.map((item, place) => node('tr', null, item[1].map(([key, cell]) => node('td', null, this.value(cell, `${path}/${place}/${step(key)}`))))))));
      }
      return node('ol', { class: 'items', start: 0 }, items.map((item, place) => node('li', null, this.value(item, `${path}/${place}`))));
    }
    if (isObject(value)) {
      if (!value[1].length) return node('span', { class: 'null' }, 'empty object');
      return node('dl', { class: 'parts' }, value[1].map(([key, inner]) => [node('dt', null, foreign(key)), node('dd', null, this.value(inner, `${path}/${step(key)}`))]));
    }
    const shown = value === null ? node('span', { class: 'null' }, 'null')
      : typeof value === 'boolean' ? node('span', { class: 'literal' }, String(value))
      : Array.isArray(value) ? node('span', { class: 'literal' }, value[1])
      : value === '' ? node('span', { class: 'null' }, 'empty text') : foreign(value, { dir: 'auto' });
    return node('span', { class: 'leaf' }, shown, ' ', this.badge(path));
  }

  badge(path) {
    const found = this.evidence.get(path);
    const parts = [];
    if (found) {
      this.used.add(path);
      const words = found.match === 'fuzzy' ? `similar ${found.score.toFixed(2)}` : MATCHES[found.match] ?? found.match;
      const marked = this.record.text && found.start !== null && !found.lost;
      parts.push(marked
        ? node('button', { type: 'button', class: `evidence m-${found.match}`, 'data-span': found.number, title: 'Show it in the source' }, words)
        : node('span', { class: `evidence m-${found.match}` }, words));
      if (!marked && found.quote) parts.push(' ', node('q', { class: 'quote' }, foreign(found.quote)), found.lost ? node('small', { class: 'faint' }, ' (not where it was)') : null);
    }
    if (this.corrected.has(path)) parts.push(' ', node('span', { class: 'evidence' }, 'corrected'));
    if (this.nulled.has(path)) parts.push(' ', node('span', { class: 'evidence m-ungrounded' }, 'set to null: no evidence'));
    const sure = this.confidence.get(path);
    if (sure !== undefined && sure !== null) parts.push(' ', node('span', { class: 'evidence' }, `confidence ${sure.toFixed(2)}`));
    return parts.length ? node('span', { class: 'badges' }, parts) : null;
  }

  failure(reason) {
    const { record } = this;
    return node('section', { 'aria-label': 'Failure' },
      node('h4', null, 'What went wrong'),
      node('p', { class: 'message' }, foreign(record.message)),
      record.problems.length ? node('div', { class: 'scroll' }, node('table', { class: 'grid' },
        node('thead', null, node('tr', null, ['field', 'error', 'message', 'value'].map((one) => node('th', { scope: 'col' }, one)))),
        node('tbody', null, record.problems.map(([path, error, message, value]) => node('tr', null,
          node('th', { scope: 'row' }, foreign(path ? spelled(path) : 'the whole answer')), node('td', null, foreign(error)), node('td', null, foreign(message)), node('td', null, value === null ? null : node('code', null, foreign(value)))))))) : null,
      record.replies.length ? node('h4', null, 'Answers that failed') : null,
      record.replies.map(([number, purpose, model, raw, more, finish, error]) => node('details', { open: true, class: 'reply' },
        node('summary', null, `${number}. ${purpose}`, node('small', null, ' ', foreign(model), finish ? ` · ${finish}` : null)),
        error ? node('p', { class: 'error' }, foreign(error)) : null,
        this.raw(raw, more))),
      record.partial ? node('details', null, node('summary', null, 'What was whole of the last answer'), node('pre', { class: 'data', tabindex: 0 }, record.partial)) : null);
  }

  raw(raw, more) {
    if (raw === null) return node('p', { class: 'faint small' }, 'no reply');
    return [node('pre', { class: 'data', tabindex: 0, dir: 'auto' }, raw), more ? node('p', { class: 'faint small' }, `${thousands(more)} more characters are in the ledger`) : null];
  }

  noSource() {
    if (this.record.text) return node('p', { class: 'faint' }, 'The text is empty.');
    const why = this.told.why.length ? this.told.why : ['The source no longer holds this record as it was when it was asked.'];
    return node('p', { class: 'notice' }, why.join(' '));
  }

  kept() {
    const { record, told } = this;
    if (!told.kept.length) return null;
    return node('section', { 'aria-label': 'Kept columns' }, node('h4', null, 'Kept columns'),
      node('dl', { class: 'parts' }, told.kept.map((name, place) => [node('dt', null, foreign(name)), node('dd', null, this.value(record.kept[place], `\u0000${place}`))])));
  }

  calls() {
    const { record, told } = this;
    if (!record.calls.length) return node('section', { 'aria-label': 'Calls' }, node('h4', null, 'Calls'), node('p', { class: 'faint' }, 'none'));
    const heads = ['call', 'model', 'status', 'latency', 'in', 'cached', 'out', 'cost', 'ended'];
    const rows = record.calls.map(([purpose, model, attempt, tries, status, http, , latency, input, cached, output, thinking, cost, finish, error]) => node('tr', { class: status === 'ok' ? null : 'failed' },
      node('th', { scope: 'row' }, `${attempt}. ${purpose}${tries > 1 ? `, try ${tries}` : ''}`),
      node('td', null, foreign(model)),
      node('td', { title: error ? visible(error) : null }, status === 'ok' ? 'ok' : `${status}${http ? ` (${http})` : ''}`),
      node('td', { class: 'number' }, lasted(latency)),
      node('td', { class: 'number' }, thousands(input)), node('td', { class: 'number' }, thousands(cached)),
      node('td', { class: 'number' }, thousands(output) + (thinking ? ` (${thousands(thinking)} thinking)` : '')),
      node('td', { class: 'number' }, price(cost, told.currency)), node('td', null, finish ?? '')));
    const replies = record.calls.filter((call) => call[15] !== null || call[14]).map((call) => node('details', { class: 'reply' },
      node('summary', null, `Raw ${call[4] === 'ok' ? 'reply' : 'error'}: ${call[2]}. ${call[0]}${call[3] > 1 ? `, try ${call[3]}` : ''}`),
      call[14] ? node('p', { class: 'error' }, foreign(call[14])) : null,
      call[15] === null ? null : this.raw(call[15], call[16])));
    return node('section', { 'aria-label': 'Calls' },
      node('h4', null, 'Calls', record.merged ? node('small', null, ' of the identical record that was asked') : null),
      node('div', { class: 'scroll' }, node('table', { class: 'grid' },
        node('thead', null, node('tr', null, heads.map((one) => node('th', { scope: 'col', class: NUMBERS.has(one) ? 'number' : null }, one)))), node('tbody', null, rows))), replies);
  }

  facts() {
    const { record } = this;
    return node('p', { class: 'faint small' }, `fingerprint ${record.fingerprint} · run ${record.run} · committed ${record.at}`);
  }

  // From a value to its place in the source, and back.
  pointAt(from, holder) {
    if (!from) return;
    const toText = from.dataset.span !== undefined;
    const numbers = toText ? [from.dataset.span] : from.dataset.spans.trim().split(' ');
    for (const one of holder.querySelectorAll('.pointed')) one.classList.remove('pointed');
    const marks = [...holder.querySelectorAll('mark')].filter((mark) => numbers.some((number) => mark.dataset.spans.includes(` ${number} `)));
    const buttons = [...holder.querySelectorAll('button.evidence')].filter((button) => numbers.includes(button.dataset.span));
    for (const one of [...marks, ...buttons]) one.classList.add('pointed');
    (toText ? marks[0] : buttons[0])?.scrollIntoView({ block: 'nearest', behavior: 'instant' });
    if (!toText) buttons[0]?.focus({ preventScroll: true });
  }
}
