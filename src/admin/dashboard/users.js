// What users notice of it all, in one sentence. No clock and no page in here.

import { ANSWERED, isError } from './figures.js';
import { milliseconds, number, plural, share } from './page.js';

/** Who waits for so long notices. */
const NOTICED_MS = 1_000;
/** Of fewer requests, nobody says what one in ten is like. */
const TELLING = 10;
/** So many errors are not a coincidence. */
const MANY = 0.01;

/** Reasons that need no looking up. */
const REASONS = { no_eligible_upstream: 'no upstream left', queue_full: 'all upstreams are busy', [ANSWERED]: 'the upstreams answer so' };

/** Level and sentence. */
export function harmOf(figures) {
  const recent = figures.total.recent();
  if (!recent) return { level: 'off', text: `Users: counting …${before(figures.now)}` };
  const window = `in the last ${windowOf(recent)}`;
  if (recent.requests === 0) return { level: 'off', text: `Users: no requests ${window}${flying(figures.now)}.${before(figures.now)}` };
  if (recent.errors > 0) {
    const level = recent.errorRate >= MANY ? 'bad' : 'warn';
    return { level, text: `Users: ${share(recent.errorRate)} of requests failed ${window}, ${how(recent, figures.now)}.` };
  }
  const broken = recent.failures.reduce((sum, [word, count]) => sum + (isError(word) ? count : 0), 0);
  // Their status was sent before, and was fine.
  if (broken > 0) return { level: broken >= MANY * recent.requests ? 'bad' : 'warn', text: `Users: ${share(broken / recent.requests)} of answers broke off half-way ${window}.` };
  const slow = slowest(recent, figures.now.latency_ms);
  return { level: slow.isNoticed ? 'warn' : 'ok', text: `Users: no errors ${window}${rescued(figures)}${slow.text}.` };
}

export const windowOf = (recent) => `${Math.max(1, Math.round(recent.seconds))} s`;

const flying = ({ status }) => (status.totals.in_flight > 0 ? `, ${number(status.totals.in_flight)} in flight` : '');

/** Whoever opens the page late should know what he missed. */
function before({ status, pools }) {
  const { requests, errors } = status.totals;
  if (requests === 0) return '';
  const retries = pools.reduce((sum, pool) => sum + pool.retries, 0);
  const again = retries > 0 ? `; ${plural(retries, 'failed attempt')} ${retries === 1 ? 'was' : 'were'} made again` : '';
  return ` Since the start: ${plural(requests, 'request')}, ${errors === 0 ? 'none' : errors} failed${again}.`;
}

/** What happened most: `with 503 (no upstream left)`. */
function how({ failures }, { statuses }) {
  const errors = failures.filter(([word, count]) => count > 0 && isError(word)).sort((one, other) => other[1] - one[1]);
  if (errors.length === 0) return 'cut off on the way';
  const [word] = errors[0];
  const mostly = errors.length > 1 ? 'mostly ' : '';
  return `${mostly}with ${statuses[word] ?? '5xx'} (${REASONS[word] ?? word.replaceAll('_', ' ')})`;
}

/** Attempts that failed, and nobody noticed. One that broke off half-way cannot be made again, and is noticed. */
function rescued(figures) {
  const { pools } = figures.now;
  const again = pools.reduce((sum, pool) => sum + (figures.recentOf(pool.name)?.retries ?? 0), 0);
  const upstreams = pools.flatMap((pool) => pool.upstreams.map((upstream) => figures.recentOf(pool.name, upstream.address)));
  const failed = upstreams.reduce((sum, recent) => sum + (recent?.errors ?? 0), 0);
  if (again === 0) return '';
  const unseen = failed <= again ? `, no user saw ${again === 1 ? 'it' : 'them'}` : '';
  return `; ${plural(again, 'failed attempt')} made again${unseen}`;
}

function slowest({ requests }, latency) {
  if (!latency || requests < TELLING) return { isNoticed: false, text: '' };
  for (const [one, value] of [[10, latency.p90], [100, latency.p99]]) {
    if (value >= NOTICED_MS) return { isNoticed: true, text: `; 1 in ${one} requests takes ${milliseconds(value)} or longer` };
  }
  return { isNoticed: false, text: latency.p99 === null ? '' : `; 99 of 100 take ${milliseconds(latency.p99)} or less` };
}
