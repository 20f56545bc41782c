// A chart component over uPlot. The library loads with the first chart, so that pages without charts do not wait for it.

import { html, useEffect, useRef, useState } from './components.js';

const HEIGHT_PX = 220;

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
      const axes = (own.axes ?? [{}, {}]).map((axis) => ({ ...axisDefaults, ...axis }));
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
