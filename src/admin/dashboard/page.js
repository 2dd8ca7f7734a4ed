// Elements, and text in them. Nothing here or elsewhere sets markup: a name may say whatever it likes.

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

/** An element with attributes, `on…` listeners, and children that are elements or text. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets text, only where it changed: what is selected stays so, and nothing is laid out anew. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets the class, likewise. */
export function dress(element, name) {
  if (element.getAttribute('class') !== name) element.setAttribute('class', name);
}

export function show(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown;
}

/**
 * Makes `parent` hold one element per item, in their order. An element lives as long as its key is there, so
 * that the keyboard's focus stays where it is.
 */
export function list(parent, items, keyOf, create, update) {
  const known = parent.elements ?? (parent.elements = new Map());
  const focused = document.activeElement;
  const wanted = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (wanted.has(key)) continue;
    wanted.add(key);
    let element = known.get(key);
    if (!element) known.set(key, (element = create(item)));
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const [key, element] of known) {
    if (wanted.has(key)) continue;
    element.remove();
    known.delete(key);
  }
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

/** Terms with what they are. */
export function facts(parent, pairs) {
  const shown = pairs.filter(([, text]) => text !== null && text !== undefined && text !== '');
  list(
    parent,
    shown,
    ([term]) => term,
    ([term]) => make('div', {}, make('dt', {}, term), make('dd')),
    (element, [, text, kind]) => {
      say(element.lastChild, text);
      dress(element, kind ?? '');
    },
  );
}

// Numbers and times, as people read them.

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (value >= 1e6) return `${trim(value / 1e6)} M`;
  if (value >= 1e4) return `${trim(value / 1e3)} k`;
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : trim(value);
}

function trim(value) {
  return String(Number(value.toPrecision(value >= 10 ? 3 : 2)));
}

export function milliseconds(value) {
  if (value === null || value === undefined) return '–';
  if (value >= 10_000) return `${trim(value / 1000)} s`;
  if (value >= 1_000) return `${trim(value / 1000)} s`;
  return `${value >= 100 ? Math.round(value) : trim(value)} ms`;
}

export function share(ratio) {
  if (ratio === null || ratio === undefined || Number.isNaN(ratio)) return '–';
  const percent = ratio * 100;
  if (percent === 0) return '0 %';
  return percent < 0.1 ? '< 0.1 %' : `${percent < 10 ? trim(percent) : Math.round(percent)} %`;
}

export function duration(seconds) {
  if (seconds < 1) return 'a moment';
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function bytes(value) {
  if (value === null || value === undefined) return '';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${trim(value)} ${units[unit]}`;
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function clock(at) {
  const time = new Date(at);
  const text = [time.getHours(), time.getMinutes(), time.getSeconds()].map(twoDigits).join(':');
  return time.toDateString() === new Date().toDateString() ? text : `${day(at)} ${text}`;
}

/** The same for everybody: 2026-11-27. */
export function day(at) {
  const time = new Date(at);
  return [time.getFullYear(), time.getMonth() + 1, time.getDate()].map(twoDigits).join('-');
}

const twoDigits = (value) => String(value).padStart(2, '0');

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}
