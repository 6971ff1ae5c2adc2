// The browser of records: search, filters, order, pages, the keyboard. Its state is the address after #.

const PAGE = 50;
const LOW = 1, CORRECTED = 2, MERGED = 4, UNSURE = 32;
const DEFAULTS = { q: '', show: 'all', reason: '', empty: '', missing: '', order: 'id' };
const form = byId('filters'), list = byId('list'), status = byId('status'), detail = byId('record');

let told, columns, records, view;
let state = { ...DEFAULTS, page: 1 };
let found = [];
let open = -1;
let turn = 0;

const wordsOf = (text) => [...text.matchAll(/"([^"]+)"|(\S+)/g)].map((one) => (one[1] ?? one[2]).toLowerCase());

function fits(at) {
  const row = columns.row[at] === 1, flags = columns.flags[at];
  if (state.show === 'rows' && !row) return false;
  if (state.show === 'failures' && row) return false;
  if (state.show === 'low' && !(flags & (LOW | UNSURE))) return false;
  if (state.show === 'corrected' && !(flags & CORRECTED)) return false;
  if (state.show === 'merged' && !(flags & MERGED)) return false;
  if (state.reason && columns.reason[at] !== state.reason) return false;
  if (state.empty !== '' && !(row && columns.empty[at].includes(Number(state.empty)))) return false;
  return state.missing === '' || (row && columns.missing[at].includes(Number(state.missing)));
}

// Finds what fits the state and shows a page of it. A later call makes an earlier one give up.
async function apply({ keep = false } = {}) {
  const mine = ++turn;
  const began = performance.now();
  const words = wordsOf(state.q);
  let fitting = [];
  for (let at = 0; at < records.count; at++) if (fits(at)) fitting.push(at);
  if (words.length) {
    await records.all(() => mine === turn, (n, of) => { status.textContent = `Unpacking ${Math.round((100 * n) / of)} %…`; });
    const hits = [];
    let since = performance.now();
    for (const at of fitting) {
      if (mine !== turn) return;
      if (words.every((word) => records.hay[at].includes(word))) hits.push(at);
      if (performance.now() - since > 12) {
        await pause();
        since = performance.now();
      }
    }
    fitting = hits;
  }
  if (mine !== turn) return;
  if (state.order !== 'id') {
    const by = columns[state.order];
    fitting.sort((a, b) => (by[b] ?? -1) - (by[a] ?? -1) || a - b);
  }
  found = fitting;
  if (!keep) state.page = 1;
  state.page = Math.min(Math.max(1, state.page), Math.max(1, Math.ceil(found.length / PAGE)));
  const rows = found.reduce((sum, at) => sum + columns.row[at], 0);
  status.textContent = found.length
    ? `${thousands(found.length)} of ${thousands(records.count)} records: ${thousands(rows)} rows, ${thousands(found.length - rows)} failures`
    : 'No record fits. Clear a filter, or search for fewer words.';
  showPage();
  remember();
  document.body.dataset.applied = String(mine);
  document.body.dataset.took = (performance.now() - began).toFixed(1);
}

function showPage() {
  const from = (state.page - 1) * PAGE;
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  list.replaceChildren(...found.slice(from, from + PAGE).map(entry));
  byId('page').value = state.page;
  byId('page').max = pages;
  byId('pages').textContent = `of ${thousands(pages)}`;
  byId('earlier').disabled = state.page <= 1;
  byId('later').disabled = state.page >= pages;
}

function entry(at) {
  const flags = columns.flags[at], row = columns.row[at] === 1;
  const link = node('a', { href: `#${addressOf({ record: columns.id[at], occurrence: columns.occurrence[at] || null })}`, 'data-at': at, 'aria-current': at === open ? 'true' : null },
    node('span', { class: 'line' },
      node('span', { class: row ? 'dot good' : 'dot bad', 'aria-hidden': 'true' }),
      foreign(columns.id[at], { class: 'data name' }),
      row ? node('span', { class: 'unseen' }, ' row') : node('span', { class: 'chip bad' }, columns.reason[at]),
      flags & (LOW | UNSURE) ? node('span', { class: 'chip warn' }, 'low evidence') : null,
      flags & CORRECTED ? node('span', { class: 'chip' }, 'corrected') : null),
    foreign(columns.preview[at], { class: 'data preview' }));
  return node('li', null, link);
}

async function show(at, { jump = false } = {}) {
  open = at;
  for (const link of list.querySelectorAll('a')) {
    if (Number(link.dataset.at) === at) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
  }
  const record = await records.at(at);
  if (open !== at) return;
  view.show(record, detail);
  document.body.dataset.open = String(at);
  if (jump) detail.scrollIntoView({ block: 'start', behavior: 'instant' });
  remember();
}

// The state as the part of the address after #.
function addressOf(more) {
  const given = { ...state, page: state.page > 1 ? state.page : null, ...more };
  const pairs = Object.entries(given).filter(([key, value]) => value !== null && value !== undefined && value !== (DEFAULTS[key] ?? ''));
  return new URLSearchParams(pairs.length ? pairs : [['show', state.show]]).toString();
}

function remember() {
  const started = JSON.stringify({ ...state, page: 1 }) !== JSON.stringify({ ...DEFAULTS, page: 1 }) || state.page > 1;
  if (!started && !location.hash.includes('=')) return;
  const record = open >= 0 ? { record: columns.id[open], occurrence: columns.occurrence[open] || null } : {};
  history.replaceState(null, '', `#${addressOf(record)}`);
}

// Takes the state from the address: a link of the page, a bookmark.
async function follow({ jump }) {
  const hash = location.hash.slice(1);
  if (!hash.includes('=')) return false;
  const given = new URLSearchParams(hash);
  state = { ...DEFAULTS, page: Number(given.get('page')) || 1 };
  for (const key of Object.keys(DEFAULTS)) if (given.has(key)) state[key] = given.get(key);
  fill();
  await apply({ keep: true });
  if (jump) byId('records').scrollIntoView({ block: 'start', behavior: 'instant' });
  const id = given.get('record');
  if (id !== null) {
    const nth = Number(given.get('occurrence')) || 0;
    const wanted = (at) => columns.id[at] === id && columns.occurrence[at] === nth;
    let at = found.find(wanted) ?? -1;
    if (at < 0) at = columns.id.findIndex((_, place) => wanted(place));
    if (at >= 0) {
      const place = found.indexOf(at);
      if (place >= 0 && Math.floor(place / PAGE) + 1 !== state.page) {
        state.page = Math.floor(place / PAGE) + 1;
        showPage();
      }
      await show(at);
    }
  } else if (found.length) await show(found[0]);
  return true;
}

// The form shows the state; a choice that the form does not have becomes the default.
function fill() {
  for (const key of Object.keys(DEFAULTS)) {
    const control = form.elements[key];
    if (!control) continue;
    control.value = state[key];
    if (control.value !== state[key]) state[key] = control.value = DEFAULTS[key];
  }
}

function turnPage(by) {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  const next = Math.min(Math.max(1, state.page + by), pages);
  if (next === state.page) return;
  state.page = next;
  showPage();
  remember();
  list.parentElement.scrollTop = 0;
  list.scrollTop = 0;
}

async function move(by) {
  if (!found.length) return;
  const place = found.indexOf(open);
  const next = place < 0 ? 0 : Math.min(Math.max(0, place + by), found.length - 1);
  const page = Math.floor(next / PAGE) + 1;
  if (page !== state.page) {
    state.page = page;
    showPage();
  }
  await show(found[next]);
  list.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' });
}

function listen() {
  let waiting;
  form.addEventListener('input', (event) => {
    if (!(event.target.name in DEFAULTS)) return;
    state[event.target.name] = event.target.value;
    clearTimeout(waiting);
    waiting = setTimeout(() => apply(), event.target.name === 'q' ? 120 : 0);
  });
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('reset', (event) => {
    event.preventDefault();
    state = { ...DEFAULTS, page: 1 };
    fill();
    apply();
  });
  list.addEventListener('click', (event) => {
    const link = event.target.closest('a');
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(Number(link.dataset.at), { jump: matchMedia('(max-width: 60rem)').matches });
  });
  byId('earlier').addEventListener('click', () => turnPage(-1));
  byId('later').addEventListener('click', () => turnPage(1));
  byId('page').addEventListener('change', (event) => turnPage((Number(event.target.value) || 1) - state.page));
  addEventListener('hashchange', () => follow({ jump: true }));
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest('input, select, textarea');
    if (event.key === 'Escape' && typing) event.target.blur();
    if (typing) return;
    const keys = { j: () => move(1), k: () => move(-1), '[': () => turnPage(-1), ']': () => turnPage(1), '/': () => form.elements.q.focus() };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
}

async function start() {
  told = await unpacked('index');
  columns = told.columns;
  records = new Records(told.sizes);
  view = new RecordView(told);
  listen();
  if (!(await follow({ jump: true }))) {
    fill();
    await apply();
    if (found.length) await show(found[0]);
  }
  document.body.dataset.ready = performance.now().toFixed(1);
  // The rest is unpacked when the browser has nothing else to do, so that the first search need not wait for it.
  const idle = globalThis.requestIdleCallback ?? ((go) => setTimeout(go, 50));
  const next = async (number) => {
    if (number >= records.starts.length) return;
    await records.piece(number);
    idle(() => next(number + 1));
  };
  idle(() => next(0));
}

start().catch((error) => {
  status.textContent = `The records cannot be shown: ${error.message}. This page needs a browser of 2023 or later.`;
  throw error;
});
