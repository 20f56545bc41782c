// Charts. The library is loaded with the first of them, so that no page waits for it.

import { html, useEffect, useRef, useState } from './parts.js';

const HEIGHT_PX = 220;

let library;

function load() {
  if (!library) {
    const link = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: '/console/vendor/uplot.css' });
    document.head.append(link);
    library = import('./vendor/uplot.js').then((module) => module.default);
  }
  return library;
}

/** A colour of the page's own, as the reader's scheme has it. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function useScheme() {
  const query = matchMedia('(prefers-color-scheme: dark)');
  const [isDark, setDark] = useState(query.matches);
  useEffect(() => {
    const changed = () => setDark(query.matches);
    query.addEventListener('change', changed);
    return () => query.removeEventListener('change', changed);
  }, []);
  return isDark;
}

/**
 * @param {object} props
 * @param {string} props.label what it shows, for whoever cannot see it
 * @param {(uPlot: any) => object} props.options of uPlot, without size; made anew when `shape` changes
 * @param {number[][]} props.data of uPlot
 * @param {string} [props.shape] another chart where this differs
 */
export function Chart({ label, options, data, shape = '' }) {
  const place = useRef(null);
  const plot = useRef(null);
  const isDark = useScheme();
  useEffect(() => {
    let isGone = false;
    const width = () => Math.max(place.current?.clientWidth ?? 0, 200);
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: width(), height: HEIGHT_PX }));
    load().then((uPlot) => {
      if (isGone) return;
      const axis = { stroke: colour('faint'), grid: { stroke: colour('line'), width: 1 }, ticks: { stroke: colour('line'), width: 1 }, font: '12px system-ui' };
      const made = options(uPlot);
      const axes = (made.axes ?? [{}, {}]).map((one) => ({ ...axis, ...one }));
      const markers = { width: 0, fill: (_, at) => made.series[at].points?.fill ?? made.series[at].stroke };
      plot.current = new uPlot({ height: HEIGHT_PX, width: width(), legend: { markers }, ...made, axes }, data, place.current);
      resize.observe(place.current);
    });
    return () => {
      isGone = true;
      resize.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [isDark, shape]);
  useEffect(() => plot.current?.setData(data), [data]);
  return html`<div class="chart" role="img" aria-label=${label} ref=${place}></div>`;
}
