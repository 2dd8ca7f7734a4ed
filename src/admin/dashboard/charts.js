// Lines over time. Small: one SVG each, with a legend that tells the latest values, or those under the pointer.

import { clock, draw, dress, list, make, say } from './page.js';
import { MEMORY_S } from './figures.js';

const [WIDTH, HEIGHT] = [600, 130];
/** So much time is shown at least, or all since the start; and never less than that. */
const SPAN_MIN_S = 120;
const SPAN_S = 20;
/** Points that are further apart have nothing between them: history has steps of 10 s. */
const GAP_S = 12;
/** Marks that are nearer, in parts of the axis, are one. */
const NEAR = 0.02;
/** So many points are drawn at most, about one per pixel of a phone. */
const POINTS_MAX = 300;

export class Chart {
  /** `unit` writes a value; `series` are `{ name, look, of(point) }`, `look` one of the classes of the style sheet. */
  constructor(title, unit, series) {
    Object.assign(this, { title, unit, series, pointed: null });
    this.top = make('span', { class: 'axis high' });
    this.ends = [make('span'), make('span')];
    this.legend = make('ul', { class: 'legend' });
    this.grid = draw('g');
    this.marks = draw('g');
    this.told = make('span', { class: 'told' });
    this.lines = draw('g');
    this.svg = draw('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' }, this.grid, this.marks, this.lines);
    for (const y of [0.5, HEIGHT / 2, HEIGHT - 0.5]) {
      this.grid.append(draw('line', { x1: 0, x2: WIDTH, y1: y, y2: y, class: 'grid' }));
    }
    this.cursor = draw('line', { y1: 0, y2: HEIGHT, class: 'cursor', visibility: 'hidden' });
    this.svg.append(this.cursor);
    const at = make('p', { class: 'axis times', 'aria-hidden': 'true' }, this.ends[0], this.told, this.ends[1]);
    this.element = make('figure', { class: 'card chart' }, make('figcaption', {}, make('h3', {}, title), this.legend), make('div', { class: 'plot' }, this.top, this.svg), at);
    this.svg.addEventListener('pointermove', (event) => this.#point(event));
    this.svg.addEventListener('pointerleave', () => this.#point(null));
  }

  /** `start` is when the process began: nothing was before it. */
  update(points, marks, start, series = this.series) {
    this.series = series;
    const last = points.at(-1)?.seconds ?? Date.now() / 1000;
    const least = Math.min(Math.max(start, last - SPAN_MIN_S), last - SPAN_S);
    this.from = Math.max(Math.min(points[0]?.seconds ?? last, least), last - MEMORY_S);
    this.to = last;
    this.points = thin(parted(points.filter((point) => point.seconds >= this.from)));
    const values = this.points.flatMap((point) => series.map((one) => one.of(point) ?? 0));
    this.most = nice(Math.max(0, ...values));
    say(this.top, this.unit(this.most));
    say(this.ends[0], clock(this.from * 1000));
    say(this.ends[1], clock(this.to * 1000));
    const groups = grouped(marks.filter((mark) => mark.seconds >= this.from && mark.seconds <= this.to), (this.to - this.from) * NEAR);
    this.#draw(groups);
    this.#label(groups);
    this.#tell();
  }

  #x(seconds) {
    return ((seconds - this.from) / Math.max(1, this.to - this.from)) * WIDTH;
  }

  #draw(marks) {
    const indexed = this.series.map((series, index) => ({ ...series, index }));
    list(
      this.lines,
      indexed,
      (series) => series.name,
      (series) => draw('path', { fill: 'none', 'vector-effect': 'non-scaling-stroke', class: series.look }),
      (path, series) => {
        dress(path, series.look);
        path.setAttribute('d', this.#path(series.of));
      },
    );
    list(
      this.marks,
      marks,
      (mark) => mark.key,
      () => draw('line', { y1: 0, y2: HEIGHT, 'vector-effect': 'non-scaling-stroke' }, draw('title')),
      (line, mark) => {
        dress(line, `mark ${mark.level}`);
        say(line.firstChild, mark.text);
        const x = this.#x(mark.seconds).toFixed(1);
        line.setAttribute('x1', x);
        line.setAttribute('x2', x);
      },
    );
  }

  /** What the latest mark stands for, below the lines. */
  #label(marks) {
    const last = marks.at(-1);
    say(this.told, last ? `┊ ${marks.length > 1 ? 'last: ' : ''}${last.brief}` : '');
    dress(this.told, `told ${last?.isOver ? 'off' : (last?.level ?? '')}`);
  }

  #path(of) {
    let [path, isOn] = ['', false];
    for (const point of this.points) {
      const value = of(point);
      if (value === null || value === undefined) {
        isOn = false;
        continue;
      }
      const y = HEIGHT - 1 - (value / this.most) * (HEIGHT - 2);
      path += `${isOn ? 'L' : 'M'}${this.#x(point.seconds).toFixed(1)} ${y.toFixed(1)}`;
      // A point alone is a dot.
      if (!isOn) path += 'h0.1';
      isOn = true;
    }
    return path;
  }

  #point(event) {
    const box = this.svg.getBoundingClientRect();
    this.pointed = event ? this.from + ((event.clientX - box.left) / box.width) * (this.to - this.from) : null;
    this.#tell();
  }

  /** The legend: values now, or where the pointer is. */
  #tell() {
    const shown = this.pointed === null ? this.points?.at(-1) : nearest(this.points, this.pointed);
    if (this.pointed !== null && shown) {
      const x = this.#x(shown.seconds).toFixed(1);
      this.cursor.setAttribute('x1', x);
      this.cursor.setAttribute('x2', x);
    }
    this.cursor.setAttribute('visibility', this.pointed === null ? 'hidden' : 'visible');
    const values = this.series.map((series) => [series, shown ? series.of(shown) : null]);
    list(
      this.legend,
      values,
      ([series]) => series.name,
      ([series]) => make('li', {}, draw('svg', { viewBox: '0 0 18 8', class: 'key', 'aria-hidden': 'true' }, draw('path', { d: 'M0 4H18', class: series.look })), make('span', { class: 'name' }, `${series.name} `), make('b')),
      (item, [series, value]) => {
        dress(item.firstChild.firstChild, series.look);
        say(item.lastChild, series.isBare ? '' : value === null || value === undefined ? '–' : this.unit(value));
      },
    );
    const words = values.map(([series, value]) => series.isBare ? series.name : `${series.name} ${value === null || value === undefined ? 'unknown' : this.unit(value)}`);
    this.svg.setAttribute('aria-label', `${this.title}, now: ${words.join(', ') || 'none'}`);
  }
}

function nearest(points, seconds) {
  return points.reduce((best, point) => (Math.abs(point.seconds - seconds) < Math.abs(best.seconds - seconds) ? point : best), points[0]);
}

/** With a point that has no value in every gap. */
function parted(points) {
  return points.flatMap((point, index) => (index > 0 && point.seconds - points[index - 1].seconds > GAP_S ? [{ seconds: point.seconds - 1 }, point] : [point]));
}

const WORST = ['bad', 'warn', 'off', 'ok'];

/** Marks, the oldest first, and those that are too near to be told apart as one, as bad as the worst of them. */
function grouped(marks, near) {
  const groups = [];
  for (const mark of [...marks].sort((one, other) => one.seconds - other.seconds)) {
    const last = groups.at(-1);
    if (last && mark.seconds - last.seconds <= near) last.marks.push(mark);
    else groups.push({ key: mark.key, seconds: mark.seconds, marks: [mark] });
  }
  return groups.map(({ key, seconds, marks: all }) => {
    const worst = all.reduce((worst, mark) => (WORST.indexOf(mark.level) < WORST.indexOf(worst.level) ? mark : worst));
    const who = worst.brief.slice(0, worst.brief.lastIndexOf(' ') + 1);
    const last = all.at(-1);
    // What is over is not told as if it lasted.
    const isOver = last.level === 'ok' && worst.level !== 'ok' && last.brief.startsWith(who);
    const end = isOver ? `, then ${last.brief.slice(who.length)}` : '';
    const others = all.length - (isOver ? 2 : 1);
    const brief = `${worst.brief}${others > 0 ? ` and ${others} more` : ''}${end}`;
    return { key, seconds, level: worst.level, isOver, brief, text: all.map((mark) => mark.text).join('\n') };
  });
}

/** Fewer points, of several the one with the highest rate of errors, or else latency: what matters is not hidden. */
function thin(points) {
  const step = Math.ceil(points.length / POINTS_MAX);
  if (step <= 1) return points;
  const kept = [];
  for (let index = points.length - 1; index >= 0; index -= step) {
    const some = points.slice(Math.max(0, index - step + 1), index + 1);
    kept.push(some.reduce((worst, point) => (badness(point) > badness(worst) ? point : worst), some.at(-1)));
  }
  return kept.reverse();
}

const badness = (point) => (point.rate === undefined ? Infinity : (point.errors ?? 0) * 1e9 + (point.p99 ?? 0));

/** The next of 1, 2, 5, 10, 20 … */
function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value * 0.999);
}
