"""The comparison page's own style and script; the script only chooses what is shown, all numbers come from Python."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2937; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h1, p { overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 48rem; } .lead { font-size: 1.1rem; } [hidden] { display: none !important; }
.controls { position: sticky; top: 0; z-index: 5; background: #fff; border-bottom: 1px solid #d1d5db;
  padding: .4rem 0; margin: .5rem 0; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; }
.controls > * { max-width: 100%; } .controls select { font: inherit; max-width: 100%; }
.controls details { max-height: 60vh; overflow-y: auto; }
summary { cursor: pointer; } button { font: inherit; font-size: .85rem; }
.boxes { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .2rem 0; font-size: .95rem; }
.boxes label { white-space: nowrap; } .swatch { width: .9em; height: .9em; margin: 0 .3em; vertical-align: -.08em; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 .8rem; margin: 0; padding: 0; font-size: .85rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 0 2rem; }
.pairs > section { min-width: 0; } .pairs > .wide { grid-column: 1 / -1; } .note { font-size: .9rem; color: #4b5563; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #e5e7eb; vertical-align: top;
  overflow-wrap: break-word; }
th { font-weight: 500; } thead th { font-weight: 600; vertical-align: bottom; min-width: 5.2rem; }
tbody th { position: sticky; left: 0; background: #fff; max-width: 14rem; min-width: 7rem; }
td { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead th:not(:first-child) { text-align: right; }
.words td, .words thead th { text-align: left; white-space: normal; overflow-wrap: anywhere; }
td small { display: block; color: #6b7280; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f3f4f6; padding: .6rem; border-radius: .3rem; }
@media (max-width: 40rem) {
  body { padding: .6rem; font-size: 15px; } th, td { padding: .3rem; } tbody th { max-width: 8.5rem; }
}
"""

# What is shown follows from the selected point and the ticked methods alone, so that update() can be called any time.
SCRIPT = """
const figures = JSON.parse(document.getElementById('figures').textContent);
const select = document.getElementById('point');
const boxes = [...document.querySelectorAll('#filter input')];

// The points that no other one beats in both size and quality, from small to large. better: 1 where more is, else -1.
function paretoFront(traces, better) {
  const points = traces.map(t => ({x: t.x[0], y: t.y[0], name: t.text[0]}));
  points.sort((a, b) => a.x - b.x || better * (b.y - a.y));
  let best = -Infinity;
  return points.filter(p => better * p.y > best && ((best = better * p.y), true));
}

function withFront(traces, division, better) {
  const front = paretoFront(traces, better);
  const names = front.map(p => p.name).join(', ');
  division.parentElement.nextElementSibling.textContent = names && 'On the front: ' + names;
  return [{x: front.map(p => p.x), y: front.map(p => p.y), mode: 'lines', line: {color: '#9ca3af', dash: 'dash',
    shape: 'hv', width: 1.5}, hoverinfo: 'skip', name: 'Pareto front'}, ...traces];
}

// One heat map of the lines that are shown.
function joined(strips) {
  const all = key => strips.flatMap(strip => strip[key] ?? []);
  return strips.slice(0, 1).map(one => ({...one, z: all('z'), y: all('y'), customdata: all('customdata'),
    ...(one.text ? {text: all('text')} : {})}));
}

function update() {
  const point = select ? Number(select.value) : 0;
  const shown = new Set(boxes.filter(box => box.checked).map(box => box.value));
  document.getElementById('count').textContent = shown.size + ' of ' + boxes.length + ' methods';
  for (const element of document.querySelectorAll('[data-method], [data-point]')) {
    const {method, point: own} = element.dataset;
    element.hidden = (method !== undefined && !shown.has(method)) || (own !== undefined && Number(own) !== point);
  }
  figures.forEach(({data, layout}, number) => {
    const division = document.getElementById('figure-' + number);
    let traces = data.filter(({meta}) => shown.has(meta.method) && meta.points.includes(point));
    const copy = structuredClone(layout);
    if (layout.meta?.rowHeight) {
      const labels = new Set(traces.map(trace => trace.y[0]));
      const lines = Math.max(1, ...[...labels].map(label => label.split('<br>').length));
      copy.height = 80 + (layout.meta.labelHeight || 0) + Math.max(layout.meta.rowHeight, 15 * lines + 2) * labels.size;
      Object.assign(copy.yaxis, {autorange: false, range: [labels.size - 0.5, -0.5]});
    }
    if (layout.meta?.strips) traces = joined(traces);
    if (layout.meta?.minWidth) division.style.minWidth = layout.meta.minWidth + 'px';
    if (layout.meta?.front) traces = withFront(traces, division, layout.meta.front);
    Plotly.react(division, traces, copy, {responsive: true, displayModeBar: false});
  });
  for (const section of document.querySelectorAll('section.rows')) {
    section.hidden = !section.querySelector('tbody tr:not([hidden])');
  }
}

function tick(value) { boxes.forEach(box => { box.checked = value; }); update(); }
document.getElementById('filter').open = window.innerWidth > 800;
document.getElementById('all').addEventListener('click', () => tick(true));
document.getElementById('none').addEventListener('click', () => tick(false));
[select, ...boxes].forEach(control => control?.addEventListener('change', update));
update();
"""
