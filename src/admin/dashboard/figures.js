// What was heard, remembered: counters become rates, and rates become lines. No clock and no page in here.

/** Rates are of so many seconds. */
export const WINDOW_S = 10;
/** Lines go back so far. */
export const MEMORY_S = 3_600;

/** How much a counter grew; none when it began anew, with another process. */
function growth(now, then) {
  return now >= then ? now - then : null;
}

/** Counters of one thing, at the moments of the last seconds. */
class Counters {
  samples = [];

  /** `failures` say how the errors came about. */
  take(seconds, { requests, errors, retries = 0, failures = {} }) {
    const last = this.samples.at(-1);
    if (last && (requests < last.requests || seconds <= last.seconds)) this.samples = [];
    this.samples.push({ seconds, requests, errors, retries, failures });
    while (this.samples.length > 2 && this.samples[0].seconds < seconds - WINDOW_S) this.samples.shift();
  }

  /** What came in the last seconds, how many they were, and rates; null before the second look. */
  recent() {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (!first || first === last) return null;
    const time = last.seconds - first.seconds;
    const [requests, errors] = [last.requests - first.requests, growth(last.errors, first.errors) ?? 0];
    const failures = Object.entries(last.failures).map(([kind, count]) => [kind, growth(count, first.failures[kind] ?? 0) ?? 0]);
    const retries = growth(last.retries, first.retries) ?? 0;
    return { seconds: time, requests, errors, retries, failures, rate: requests / time, errorRate: requests > 0 ? errors / requests : null };
  }
}

export class Figures {
  /** The latest. */
  now = null;
  /** One point per tick: seconds, rate, errors, p50, p90, p99, reasons. */
  points = [];
  total = new Counters();
  #members = new Map();
  #seen = null;

  /** Takes in one `figures` event. */
  take(live) {
    const seconds = Date.parse(live.at) / 1000;
    this.now = live;
    this.total.take(seconds, { ...live.status.totals, failures: reasonsOf(live) });
    const known = new Map();
    const take = (key, counts) => {
      const counters = this.#members.get(key) ?? new Counters();
      counters.take(seconds, counts);
      known.set(key, counters);
    };
    for (const pool of live.pools) {
      take(pool.name, pool);
      for (const upstream of pool.upstreams) take(`${pool.name}\n${upstream.address}`, upstream);
    }
    this.#members = known;
    this.#point(seconds, live);
  }

  /** Whether requests came, and no upstream answered one of them: what they took is the time of a refusal. */
  get isRefusing() {
    const isUsed = (pool) => pool.upstreams.some((upstream) => this.recentOf(pool.name, upstream.address)?.requests > 0);
    return this.total.recent()?.requests > 0 && !this.now.pools.some(isUsed);
  }

  /** Of an upstream its attempts; without an address, of the pool its requests as clients saw them. */
  recentOf(pool, address) {
    return this.#members.get(address === undefined ? pool : `${pool}\n${address}`)?.recent() ?? null;
  }

  /** A point is of the same seconds as every other figure on the page. */
  #point(seconds, live) {
    const [recent, then] = [this.total.recent(), this.#seen];
    this.#seen = seconds;
    if (!recent || seconds <= then) return;
    // Whoever comes back after a while draws a gap, not a line.
    if (seconds - then > WINDOW_S) this.points.push({ seconds: then + 1 });
    const latency = (this.isRefusing ? null : live.latency_ms) ?? {};
    const grown = recent.failures.filter(([, count]) => count > 0).map(([word, count]) => [word, count / recent.seconds]);
    this.points.push({
      seconds,
      rate: recent.rate,
      errors: recent.errors / recent.seconds,
      p50: latency.p50,
      p90: latency.p90,
      p99: latency.p99,
      reasons: Object.fromEntries(grown),
    });
    while (this.points.length > 0 && this.points[0].seconds < seconds - MEMORY_S) this.points.shift();
  }

  /** Puts what the server remembers where nothing was seen here. */
  remember(points) {
    const seen = new Set(this.points.map((point) => Math.round(point.seconds / WINDOW_S)));
    // A step that is under way ends later than what was seen last.
    const latest = Date.parse(this.now.at) / 1000;
    const unseen = points.filter((point) => point.seconds <= latest && !seen.has(Math.round(point.seconds / WINDOW_S)));
    const gaps = this.points.filter((point) => point.rate !== undefined || unseen.length === 0);
    // By what reasons is not remembered.
    this.points = [...unseen, ...gaps].sort((one, other) => one.seconds - other.seconds);
  }

  /** Reasons by how often they were lately, the most frequent first. */
  reasons() {
    const sums = new Map();
    for (const point of this.points) {
      for (const [word, rate] of Object.entries(point.reasons ?? {})) sums.set(word, (sums.get(word) ?? 0) + rate);
    }
    return [...sums].sort((one, other) => other[1] - one[1]).map(([word]) => word);
  }
}

/** Counts by reason, with those that the upstreams answered themselves. */
function reasonsOf({ reasons, status }) {
  const ours = Object.entries(reasons).reduce((sum, [word, count]) => sum + (isError(word) ? count : 0), 0);
  const answered = status.totals.errors - ours;
  return answered > 0 ? { ...reasons, [ANSWERED]: answered } : reasons;
}

/** An error that an upstream answered with. */
export const ANSWERED = '5xx of the upstream';

/** Reasons whose status is below 500: the client's doing. */
const CLIENTS = new Set([
  'no_route',
  'bad_request',
  'head_too_large',
  'body_too_large',
  'request_timeout',
  'rate_limited',
  'client_closed',
]);

export const isError = (reason) => !CLIENTS.has(reason);
