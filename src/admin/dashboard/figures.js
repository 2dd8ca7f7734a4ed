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
  take(seconds, { requests, errors, failures = {} }) {
    const last = this.samples.at(-1);
    if (last && (requests < last.requests || seconds <= last.seconds)) this.samples = [];
    this.samples.push({ seconds, requests, errors, failures });
    while (this.samples.length > 2 && this.samples[0].seconds < seconds - WINDOW_S) this.samples.shift();
  }

  /** Requests and errors of the last seconds, and how many of each per second; null before the second look. */
  recent() {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (!first || first === last) return null;
    const time = last.seconds - first.seconds;
    const [requests, errors] = [last.requests - first.requests, growth(last.errors, first.errors) ?? 0];
    const failures = Object.entries(last.failures).map(([kind, count]) => [kind, growth(count, first.failures[kind] ?? 0) ?? 0]);
    return { requests, errors, failures, rate: requests / time, errorRate: requests > 0 ? errors / requests : 0 };
  }
}

export class Figures {
  /** The latest. */
  now = null;
  /** One point per tick: seconds, rate, errors, p50, p90, p99, reasons. */
  points = [];
  total = new Counters();
  #upstreams = new Map();
  #reasons = null;

  /** Takes in one `figures` event. */
  take(live) {
    const seconds = Date.parse(live.at) / 1000;
    const totals = live.status.totals;
    this.now = live;
    this.total.take(seconds, totals);
    this.#point(seconds, live);
    const known = new Map();
    for (const pool of live.pools) {
      for (const upstream of pool.upstreams) {
        const key = `${pool.name}\n${upstream.address}`;
        const counters = this.#upstreams.get(key) ?? new Counters();
        counters.take(seconds, upstream);
        known.set(key, counters);
      }
    }
    this.#upstreams = known;
  }

  recentOf(pool, address) {
    return this.#upstreams.get(`${pool}\n${address}`)?.recent() ?? null;
  }

  #point(seconds, live) {
    const { requests, errors } = live.status.totals;
    const answered = errors - Object.entries(live.reasons).reduce((sum, [word, n]) => sum + (isError(word) ? n : 0), 0);
    const reasons = { ...live.reasons };
    if (answered > 0) reasons['5xx of the upstream'] = answered;
    const then = this.#reasons;
    this.#reasons = { seconds, requests, errors, reasons };
    if (!then || requests < then.requests || seconds <= then.seconds) return;
    const time = seconds - then.seconds;
    // Whoever comes back after a while draws a gap, not a line.
    if (time > WINDOW_S) this.points.push({ seconds: then.seconds + 1 });
    const latency = live.latency_ms ?? {};
    const grown = {};
    for (const [word, count] of Object.entries(reasons)) {
      const more = growth(count, then.reasons[word] ?? 0);
      if (more > 0) grown[word] = more / time;
    }
    this.points.push({
      seconds,
      rate: (requests - then.requests) / time,
      errors: Math.max(0, errors - then.errors) / time,
      p50: latency.p50,
      p90: latency.p90,
      p99: latency.p99,
      reasons: grown,
    });
    while (this.points.length > 0 && this.points[0].seconds < seconds - MEMORY_S) this.points.shift();
  }

  /** Puts what the server remembers where nothing was seen here. */
  remember(points) {
    const seen = new Set(this.points.map((point) => Math.round(point.seconds / WINDOW_S)));
    const unseen = points.filter((point) => !seen.has(Math.round(point.seconds / WINDOW_S)));
    const gaps = this.points.filter((point) => point.rate !== undefined || unseen.length === 0);
    this.points = [...unseen.map((point) => ({ reasons: {}, ...point })), ...gaps].sort((one, other) => one.seconds - other.seconds);
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
