// A chart component over uPlot. The library loads with the first chart, so that pages without charts do not wait for it.

import { html, useEffect, useRef, useState } from './components.js';

const HEIGHT_PX = 220;
/** The least distance of two labels of the time axis. */
const TIME_LABEL_PX = 80;

const DAY_S = 86_400;
const YEAR_S = 365 * DAY_S;
const formats = new Map();

/** A time in seconds in the reader's locale. */
function format(seconds, options) {
  const name = JSON.stringify(options);
  if (!formats.has(name)) formats.set(name, new Intl.DateTimeFormat(undefined, options));
  return formats.get(name).format(seconds * 1000);
}

const DATE = { day: 'numeric', month: 'short' };

/** The labels of a time axis: times with the date where the day changes, days with the year where it changes, or years. */
export function timeLabels(_, splits, __, ___, increment) {
  return splits.map((split, n) => {
    const before = n > 0 ? splits[n - 1] : undefined;
    const changes = (options) => before === undefined || format(before, options) !== format(split, options);
    if (increment >= YEAR_S) return format(split, { year: 'numeric' });
    if (increment >= DAY_S) return format(split, DATE) + (changes({ year: 'numeric' }) ? `\n${format(split, { year: 'numeric' })}` : '');
    const clock = { hour: 'numeric', minute: '2-digit', ...(increment < 60 && { second: '2-digit' }) };
    return format(split, clock) + (changes(DATE) ? `\n${format(split, DATE)}` : '');
  });
}

let library;

function loadLibrary() {
  if (!library) {
    const link = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: '/console/vendor/uplot.css' });
    document.head.append(link);
    library = import('./vendor/uplot.js').then((module) => module.default);
  }
  return library;
}

/** A colour variable of style.css in the current colour scheme. */
export const themeColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function useDarkMode() {
  const query = matchMedia('(prefers-color-scheme: dark)');
  const [isDark, setDark] = useState(query.matches);
  useEffect(() => {
    const onChange = () => setDark(query.matches);
    query.addEventListener('change', onChange);
    return () => query.removeEventListener('change', onChange);
  }, []);
  return isDark;
}

/**
 * @param {object} props
 * @param {string} props.label a text alternative for screen readers
 * @param {(uPlot: any) => object} props.options creates the uPlot options without the size; called again when `variant` changes
 * @param {number[][]} props.data the uPlot data
 * @param {string} [props.variant] a new value recreates the chart
 */
export function Chart({ label, options, data, variant = '' }) {
  const container = useRef(null);
  const plot = useRef(null);
  const isDark = useDarkMode();
  useEffect(() => {
    let isUnmounted = false;
    const width = () => Math.max(container.current?.clientWidth ?? 0, 200);
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: width(), height: HEIGHT_PX }));
    loadLibrary().then((uPlot) => {
      if (isUnmounted) return;
      const axisDefaults = { stroke: themeColor('muted'), grid: { stroke: themeColor('line'), width: 1 }, ticks: { stroke: themeColor('line'), width: 1 }, font: '12px system-ui' };
      const own = options(uPlot);
      const [time, ...values] = own.axes ?? [{}, {}];
      const axes = [{ values: timeLabels, space: TIME_LABEL_PX, ...time }, ...values].map((axis) => ({ ...axisDefaults, ...axis }));
      const markers = { width: 0, fill: (_, series) => own.series[series].points?.fill ?? own.series[series].stroke };
      plot.current = new uPlot({ height: HEIGHT_PX, width: width(), legend: { markers }, ...own, axes }, data, container.current);
      resize.observe(container.current);
    });
    return () => {
      isUnmounted = true;
      resize.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [isDark, variant]);
  useEffect(() => plot.current?.setData(data), [data]);
  return html`<div class="chart" role="img" aria-label=${label} ref=${container}></div>`;
}
