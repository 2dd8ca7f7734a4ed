// A card per pool, a row per upstream; of many, the sick ones first and the others on demand.

import { SYMBOLS, ago, countsOf, isSick, perilOf } from './verdicts.js';
import { byId, dress, list, make, milliseconds, number, plural, say, share, show } from './page.js';

/** Of a pool with more upstreams than this, the rest is folded. */
const ROWS = 10;
/** So many more at a time. */
const ROWS_MORE = 50;
/** Likewise for pools. */
const POOLS = 12;

const COLUMNS = ['Upstream', 'State', 'In flight', 'Requests/s', 'Errors', 'Latency, mean', 'Share', 'Last check', ''];

/** How much is unfolded, by pool. */
const unfolded = new Map();
let poolsShown = POOLS;

/** `judged` are pools with their verdicts; `acts` says what the viewer may do, and does it. */
export function drawPools(judged, now, acts) {
  const wanted = byId('find').value.trim().toLowerCase();
  const isSickOnly = byId('sick').checked;
  const cards = judged.map((one) => ({ ...one, found: find(one, wanted, isSickOnly) }));
  const isSearching = wanted !== '' || isSickOnly;
  const shown = isSearching ? cards.filter((card) => card.found.length > 0) : cards;
  // Pools in trouble first; among equals the order of the configuration.
  shown.sort((one, other) => severity(other) - severity(one));
  const found = shown.reduce((sum, card) => sum + card.found.length, 0);
  say(byId('found'), isSearching ? `${plural(found, 'upstream')} found` : '');
  const parent = byId('pools');
  list(parent, shown.slice(0, poolsShown), (card) => card.pool.name, (card) => newCard(card, acts), (element, card) => {
    element.drawn(card, now, isSearching);
  });
  drawMore(parent, shown.length);
}

function drawMore(parent, count) {
  parent.more ??= make('button', { type: 'button', onclick: () => ((poolsShown += POOLS), parent.more.again()) });
  parent.more.again = () => document.dispatchEvent(new Event('redraw'));
  if (!parent.more.isConnected) parent.after(parent.more);
  show(parent.more, count > poolsShown);
  say(parent.more, `Show more of ${count} pools`);
}

function severity({ pool, verdicts }) {
  if (pool.eligible === 0) return 1e6;
  return verdicts.reduce((sum, verdict) => sum + (verdict.level === 'bad' ? 100 : verdict.level === 'warn' ? 1 : 0), 0);
}

function find({ pool, verdicts }, wanted, isSickOnly) {
  const matches = (verdict) =>
    [pool.name, verdict.upstream.address, verdict.word, verdict.kind].some((text) => text.toLowerCase().includes(wanted));
  return verdicts
    .filter((verdict) => (!isSickOnly || !['ok', 'untested'].includes(verdict.kind)) && (wanted === '' || matches(verdict)))
    .sort((one, other) => one.rank - other.rank);
}

function newCard({ pool }, acts) {
  const id = `pool-${newCard.count++}`;
  const title = make('h3', { id }, pool.name);
  const eligible = make('span', { class: 'badge' });
  const about = make('p', { class: 'muted about' });
  const check = make('button', { type: 'button', onclick: () => acts.check(pool.name) }, 'Check health now');
  const strategy = make('button', { type: 'button', onclick: () => acts.strategy(pool.name) }, 'Strategy …');
  check.setAttribute('aria-label', `Check health of ${pool.name} now`);
  strategy.setAttribute('aria-label', `Strategy of ${pool.name} …`);
  const rows = make('tbody', { role: 'rowgroup' });
  const head = COLUMNS.map((name) => make('th', { scope: 'col', role: 'columnheader' }, name === '' ? make('span', { class: 'unseen' }, 'Actions') : name));
  const table = make('table', { role: 'table', 'aria-labelledby': id }, make('thead', { role: 'rowgroup' }, make('tr', { role: 'row' }, ...head)), rows);
  const more = make('button', { type: 'button' });
  const less = make('button', { type: 'button' }, 'Fold');
  const unfold = (count) => {
    unfolded.set(pool.name, count);
    document.dispatchEvent(new Event('redraw'));
  };
  more.addEventListener('click', () => unfold((unfolded.get(pool.name) ?? ROWS) + ROWS_MORE));
  less.addEventListener('click', () => unfold(ROWS));
  const foot = make('p', { class: 'foot' }, more, ' ', less);
  const card = make('section', { class: 'card pool', 'aria-labelledby': id }, make('div', { class: 'bar' }, title, eligible, about, make('span', { class: 'buttons' }, check, strategy)), table, foot);
  card.drawn = (now, time, isSearching) => {
    drawHead(now, { eligible, about });
    const isEmpty = now.pool.upstreams.length === 0;
    show(table, !isEmpty);
    show(check, acts.mayOperate() && now.pool.health_check !== null && !isEmpty);
    show(strategy, acts.mayWrite());
    const most = Math.max(unfolded.get(pool.name) ?? ROWS, isSearching ? ROWS_MORE : 0);
    const shown = now.found.slice(0, most);
    list(rows, shown, (verdict) => verdict.upstream.address, (verdict) => newRow(verdict, acts), (row, verdict) => row.drawn(verdict, time));
    const left = now.found.length - shown.length;
    show(more, left > 0);
    show(less, most > ROWS && now.found.length > ROWS && !isSearching);
    say(more, `Show ${Math.min(left, ROWS_MORE)} more of ${plural(now.found.length, 'upstream')}`);
  };
  return card;
}
newCard.count = 0;

function drawHead({ pool, verdicts, recent }, { eligible, about }) {
  const count = pool.upstreams.length;
  const isShort = verdicts.some((verdict) => isSick(verdict) && verdict.upstream.why_not);
  const level = pool.eligible === 0 || perilOf({ pool, verdicts }) ? 'bad' : isShort ? 'warn' : 'ok';
  dress(eligible, `badge ${level}`);
  say(eligible, `${SYMBOLS[level]} ${pool.eligible} of ${count} ${count === 1 ? 'takes' : 'take'} requests`);
  const counts = verdicts.every((verdict) => verdict.kind === 'ok') ? '' : `${countsOf(verdicts)} · `;
  const rate = recent ? `${number(recent.rate)} requests/s${failedOf(recent)}` : '– requests/s';
  const flying = verdicts.reduce((sum, verdict) => sum + verdict.upstream.in_flight, 0);
  const waiting = pool.waiting > 0 ? ` · ${pool.waiting} waiting for room` : '';
  const again = recent?.retries > 0 ? ` · ${plural(recent.retries, 'failed attempt')} made again` : '';
  const unchecked = pool.health_check === null ? ' · no health checks' : '';
  say(about, `${counts}${pool.strategy} · ${rate}${again} · ${flying} in flight${waiting}${unchecked}`);
}

const failedOf = ({ errors, errorRate }) => (errors > 0 ? `, ${share(errorRate)} failed` : '');

function newRow({ pool, upstream }, acts) {
  const cell = (label, ...children) => make('td', { role: 'cell', 'data-label': label }, ...children);
  const address = make('span', { class: 'address' }, upstream.address);
  const notes = make('span', { class: 'muted notes' });
  const badge = make('span', { class: 'badge' });
  const why = make('p', { class: 'why' });
  const [flying, rate, errors, latency] = ['In flight', 'Requests/s', 'Errors', 'Latency, mean'].map((label) => cell(label));
  const bar = make('meter', { min: 0, max: 1, high: 0.8, optimum: 0.5, class: 'share' });
  const part = make('span');
  const check = make('span', { class: 'check' });
  const button = make('button', { type: 'button' });
  button.addEventListener('click', () => acts.upstream(pool.name, upstream.address));
  const row = make(
    'tr',
    { role: 'row' },
    make('th', { scope: 'row', role: 'rowheader' }, address, notes),
    make('td', { role: 'cell', class: 'state' }, badge, why),
    flying,
    rate,
    errors,
    latency,
    cell('Share', part, make('span', { class: 'fair' }, bar)),
    cell('Last check', check),
    make('td', { role: 'cell', class: 'do' }, button),
  );
  row.drawn = (verdict, now) => {
    const { upstream: it, recent } = verdict;
    dress(row, verdict.level);
    dress(badge, `badge ${verdict.level}`);
    say(badge, `${verdict.symbol} ${verdict.word}`);
    say(why, verdict.why);
    say(notes, notesOf(it));
    say(flying, it.max_connections === undefined ? String(it.in_flight) : `${it.in_flight} / ${it.max_connections}`);
    say(rate, recent ? number(recent.rate) : '–');
    say(errors, recent ? share(recent.errorRate) : '–');
    dress(errors, recent && recent.errors > 0 ? 'hot' : '');
    say(latency, milliseconds(verdict.latency));
    latency.title = it.p99_ms === undefined ? '' : `Since the start: median ${milliseconds(it.p50_ms)}, 99 % within ${milliseconds(it.p99_ms)}`;
    say(part, verdict.share === null || (verdict.fair === 0 && verdict.share === 0) ? '–' : `${share(verdict.share)} (fair ${share(verdict.fair)})`);
    drawShare(bar, verdict);
    const last = it.last_check;
    say(check, !last ? '–' : `${last.ok ? 'passed' : 'failed'} ${ago(last.at, now)}`);
    check.title = last?.error ?? '';
    const [offer, label] = acts.mayOperate() ? ['Change …', 'Change'] : ['Details …', 'Details of'];
    say(button, offer);
    button.setAttribute('aria-label', `${label} ${it.address} in ${pool.name} …`);
    show(button, acts.mayRead());
  };
  return row;
}

/** Half of the bar, where its mark is, is the fair share. */
function drawShare(bar, { share: got, fair }) {
  const value = got === null || fair === 0 ? (got > 0 ? 1 : 0) : Math.min(1, got / fair / 2);
  if (bar.value !== value) bar.value = value;
  const words = `${share(got)} of the pool's requests, ${share(fair)} would be fair`;
  if (bar.title !== words) {
    bar.title = words;
    bar.setAttribute('aria-label', words);
  }
}

function notesOf(upstream) {
  const notes = [`weight ${upstream.weight}`];
  if (upstream.backup) notes.push('backup');
  if (upstream.overridden) notes.push('differs from the file');
  return notes.join(' · ');
}
