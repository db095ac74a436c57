"use strict";
(() => {
  const root = document.documentElement;
  const { datasets, specs } = JSON.parse(document.getElementById("figures").textContent);

  // Data sets are held by columns, and texts once
  function rowsOf({ ...columns }) {
    for (const [name, column] of Object.entries(columns))
      if (!Array.isArray(column)) columns[name] = column.indices.map((index) => column.texts[index] ?? null);
    const length = Math.max(0, ...Object.values(columns).map((column) => column.length));
    const names = Object.keys(columns);
    return Array.from({ length }, (_, row) => Object.fromEntries(names.map((name) => [name, columns[name][row]])));
  }

  function withRows(spec) {
    const used = new Set();
    JSON.stringify(spec, (key, value) => (key === "data" && value?.name && used.add(value.name), value));
    const own = [...used].filter((name) => name in datasets);
    return { ...spec, datasets: Object.fromEntries(own.map((name) => [name, rowsOf(datasets[name])])) };
  }

  // Figures: never wider than their column. Charts side by side share what is to be saved.
  function narrowed(spec, excess) {
    const side = spec.hconcat ?? spec.concat ?? spec.vconcat;
    if (side) {
      const across = spec.hconcat ? side.length : spec.concat ? (spec.columns ?? side.length) : 1;
      const key = spec.hconcat ? "hconcat" : spec.concat ? "concat" : "vconcat";
      return { ...spec, [key]: side.map((each) => narrowed(each, excess / across)) };
    }
    if (spec.spec) {
      const across = spec.columns ?? (spec.facet?.column ? spec.across ?? 1 : 1);
      return { ...spec, spec: narrowed(spec.spec, excess / across) };
    }
    return typeof spec.width === "number" ? { ...spec, width: Math.max(80, spec.width - excess) } : spec;
  }

  async function render(chart, spec) {
    chart.drawing?.finalize();
    const bind = chart.parentElement.querySelector(".controls");
    bind.replaceChildren();
    const look = { renderer: "svg", actions: false, defaultStyle: false, tooltip: showTooltip, bind };
    const options = { ...look, mode: "vega-lite", logLevel: 1 }; // errors alone
    chart.drawing = await vegaEmbed(chart, withRows(spec), options);
    return chart.querySelector("svg").getBoundingClientRect().width - chart.clientWidth;
  }

  async function draw(chart) {
    if (chart.drawnAt === chart.clientWidth || !chart.clientWidth) return;
    chart.drawnAt = chart.clientWidth;
    let spec = specs[chart.dataset.number];
    let excess = await render(chart, spec);
    for (let attempt = 0; attempt < 3 && excess > 0.5; attempt++) {
      spec = narrowed(spec, Math.ceil(excess));
      excess = await render(chart, spec);
    }
    chart.classList.add("ready");
  }

  const charts = [...document.querySelectorAll(".chart")];
  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "400px" },
  );
  charts.forEach((chart) => seen.observe(chart));
  addEventListener("resize", () => charts.filter((chart) => chart.drawing).forEach(draw));

  const tooltip = document.getElementById("tooltip");
  function showTooltip(_, event, __, value) {
    tooltip.hidden = value == null || value === "";
    if (tooltip.hidden) return;
    const lines = typeof value === "object" ? Object.entries(value) : [[value]];
    tooltip.replaceChildren(
      ...lines.map((texts) => {
        const line = document.createElement("div");
        texts.forEach((text) => (line.appendChild(document.createElement("span")).textContent = text));
        return line;
      }),
    );
    const { width, height } = tooltip.getBoundingClientRect();
    tooltip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 4))}px`;
    tooltip.style.top = `${event.clientY + height + 20 > innerHeight ? event.clientY - height - 12 : event.clientY + 14}px`;
  }

  // Tables: a click on a header sorts, a second one turns the order round
  const UNITS = { ms: 1e-3, s: 1, min: 60, h: 3600, d: 86400, k: 1e3, K: 1e3, M: 1e6, G: 1e9, T: 1e12 };
  const NUMBER = /^[<>≤≥~≈*\s]*([+-]?\d*\.?\d+(?:e[+-]?\d+)?)\s*(ms|min|[shdkKMGT])?(?![\w-])/;
  function numberOf(text) {
    const plain = text.replaceAll(",", "").replace(/[−–](?=[\d.])/, "-");
    const first = NUMBER.exec(plain);
    if (!first) return NaN;
    const value = Number(first[1]) * (UNITS[first[2]] ?? 1);
    const rest = plain.slice(first[0].length).trim();
    return ["d", "h", "min"].includes(first[2]) && /^\d/.test(rest) ? value + numberOf(rest) : value;
  }

  const { compare } = new Intl.Collator("en", { numeric: true });
  const isEmpty = (text) => ["", "–", "—", "-"].includes(text);
  function sortTable(header) {
    const table = header.closest("table");
    const descending = header.ariaSort === "ascending";
    table.querySelectorAll("th").forEach((other) => (other.ariaSort = "none"));
    header.ariaSort = descending ? "descending" : "ascending";
    const rows = [...table.tBodies[0].rows].map((row) => [row, row.cells[header.cellIndex].textContent.trim()]);
    const isNumeric = rows.every(([, text]) => isEmpty(text) || !Number.isNaN(numberOf(text)));
    const order = isNumeric ? (a, b) => numberOf(a) - numberOf(b) : compare;
    rows.sort(([, a], [, b]) => isEmpty(a) - isEmpty(b) || (isEmpty(a) ? 0 : order(a, b) * (descending ? -1 : 1)));
    table.tBodies[0].append(...rows.map(([row]) => row));
  }
  document.querySelectorAll("th button").forEach((button) => (button.onclick = () => sortTable(button.parentElement)));

  // Light and dark
  document.getElementById("theme").onclick = () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  };

  // A link to a folded section unfolds it; on paper all are unfolded and every figure is drawn
  const unfold = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target?.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", unfold);
  document.querySelectorAll("nav a").forEach((link) => link.addEventListener("click", () => setTimeout(unfold)));
  unfold();
  const details = [...document.querySelectorAll("details")];
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = details.filter((each) => !each.open);
    folded.forEach((each) => (each.open = true));
    charts.forEach(draw);
  });
  addEventListener("afterprint", () => folded.forEach((each) => (each.open = false)));
})();
