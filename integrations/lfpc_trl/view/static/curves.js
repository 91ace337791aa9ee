// The curves of one or two runs, one small uPlot chart per metric, drawn when it becomes visible.

import { getJSON } from "/static/shared/api.js";
import { el, put } from "/static/shared/dom.js";

const { uPlot } = window;
const HEIGHT = 190;
/** Tick distances of the step axis: whole steps only. */
const WHOLE_STEPS = [1, 10, 100, 1000, 10000, 100000].flatMap((power) => [power, 2 * power, 5 * power]);

/** Values of each run at the steps of all runs: uPlot needs a shared axis. */
function aligned(runs, name) {
  const steps = [...new Set(runs.flatMap((run) => run.step))].sort((a, b) => a - b);
  const columns = runs.map((run) => {
    // If a resumed run logged a step twice, the last value counts.
    const at = new Map(run.step.map((step, index) => [step, run.series[name]?.[index] ?? null]));
    return steps.map((step) => at.get(step) ?? null);
  });
  return [steps, ...columns];
}

function number(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 1000 || (value !== 0 && Math.abs(value) < 0.001)
    ? value.toExponential(2)
    : value.toPrecision(3);
}

/** The range of an axis: a margin of a tenth above and below, also for a flat curve. */
function spread(_, low, high) {
  if (low === null) return [0, 1];
  const margin = (high - low || Math.abs(low) || 1) / 10;
  return [low - margin, high + margin];
}

function plot(host, runs, name, reading) {
  const style = getComputedStyle(document.body);
  const [ink, line] = [style.getPropertyValue("--soft").trim(), style.getPropertyValue("--line").trim()];
  const axis = {
    stroke: ink,
    grid: { stroke: line, width: 1 },
    ticks: { stroke: line, width: 1 },
    font: "11px system-ui, sans-serif",
  };
  const colours = runs.map((_, index) =>
    getComputedStyle(host.closest(".charts").querySelector(`.run-${index}`))
      .getPropertyValue("--run")
      .trim(),
  );
  const data = aligned(runs, name);
  const alone = data[0].length < 2;
  const read = (index) => {
    const at = index ?? data[0].length - 1;
    reading.textContent = `step ${data[0][at]}: ${data
      .slice(1)
      .map((column) => number(column[at]))
      .join(" / ")}`;
  };
  const chart = new uPlot(
    {
      width: host.clientWidth,
      height: HEIGHT,
      cursor: { y: false, sync: { key: "step" } },
      scales: { x: { time: false }, y: { range: spread } },
      axes: [
        { ...axis, incrs: WHOLE_STEPS },
        {
          ...axis,
          size: 58,
          values: (_, ticks) =>
            ticks.map((tick) => (tick === null ? "" : String(Number(tick.toPrecision(6))))),
        },
      ],
      series: [
        {},
        ...colours.map((stroke) => ({
          stroke,
          width: 1.75,
          spanGaps: true,
          points: { show: alone, size: 6 },
        })),
      ],
      hooks: { setCursor: [(u) => read(u.cursor.idx)] },
    },
    data,
    host,
  );
  read(null);
  new ResizeObserver(() => {
    if (host.clientWidth) chart.setSize({ width: host.clientWidth, height: HEIGHT });
  }).observe(host);
}

/** Fills `host` with the charts of all metrics. */
export async function showCurves(host) {
  const { runs } = await getJSON("/api/curves");
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.series)))];
  if (!names.length) {
    put(
      host,
      el(
        "p",
        { class: "quiet" },
        "No metrics.jsonl: this is a trajectory file, not a run directory.",
      ),
    );
    return;
  }
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        observer.unobserve(entry.target);
        entry.target.draw();
      }
    }
  });
  const charts = names.map((name) => {
    const body = el("div", {});
    const reading = el("span", {});
    const card = el(
      "section",
      { class: "chart", "data-name": name, "aria-label": `Curve of ${name}` },
      el("h3", {}, name, reading),
      body,
    );
    card.draw = () => plot(body, runs, name, reading);
    return card;
  });
  const search = el("input", {
    type: "search",
    placeholder: "Find a curve",
    "aria-label": "Find a curve",
    oninput: () => {
      for (const chart of charts) chart.hidden = !chart.dataset.name.includes(search.value.trim());
    },
  });
  put(
    host,
    el(
      "div",
      { class: "curves-head" },
      search,
      runs.map((run, index) =>
        el(
          "span",
          { class: `run-${index}` },
          el("i", { class: "dot" }),
          `${run.name} · ${run.step.length} steps`,
        ),
      ),
    ),
    el(
      "div",
      { class: "charts" },
      runs.map((_, index) => el("i", { class: `run-${index}`, hidden: true })),
      charts,
    ),
  );
  charts.forEach((chart) => observer.observe(chart));
}
