"""The page's style, and the script that keeps it up to date."""

REFRESH_MILLISECONDS = 3000

STYLE = """
:root { color-scheme: light dark; --ink: #1f2937; --quiet: #5b6472; --rule: #e5e7eb; --back: #ffffff; --card: #f6f7f9;
  --strong: #2563eb; --weak: #8a8f98; --good: #15803d; --bad: #b91c1c; --warn: #92400e; --warnback: #fef3c7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --quiet: #9ca3af; --rule: #374151; --back: #111827;
  --card: #1b2433; --strong: #60a5fa; --weak: #7d8694; --good: #4ade80; --bad: #f87171; --warn: #fde68a;
  --warnback: #3b2f12; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
  max-width: 62rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; } footer { margin-top: 2rem; } a { color: var(--strong); }
p { margin: .25rem 0 .75rem; max-width: 46rem; } .quiet { color: var(--quiet); }
.problem { background: var(--warnback); color: var(--warn); padding: .5rem .75rem; border-radius: .4rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.cards div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
.cards dt { color: var(--quiet); font-size: .85rem; } .cards dd { margin: 0; font-size: 1.25rem; font-weight: 600; }
.cards dd small { display: block; color: var(--quiet); font-size: .8rem; font-weight: 400; }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 2px solid var(--strong); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; overflow-wrap: normal; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
th.figure, td.figure { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.when { white-space: nowrap; } th[scope=row] { font-weight: 500; } td.words { min-width: 9rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
svg.bars { display: block; margin: .25rem 0 .75rem; } svg .room { fill: transparent; }
svg .strong { fill: var(--strong); } svg .weak { fill: var(--weak); }
svg .unknown { fill: none; stroke: var(--weak); stroke-dasharray: 2 2; }
svg .axis { stroke: var(--rule); } svg .tick { fill: var(--quiet); font-size: 12px; }
summary { cursor: pointer; }
@media (max-width: 40rem) { body { padding: .6rem; font-size: 15px; } th, td { padding: .3rem; } }
"""

# /status.json says whether anything has changed; what has is taken from the page, so that there is one that draws it.
SCRIPT = f"""
'use strict';
const age = seconds => seconds < 100 ? Math.round(seconds) + ' s' : seconds < 5400 ? Math.round(seconds / 60) + ' min'
  : seconds < 172800 ? Math.round(seconds / 3600) + ' h' : Math.round(seconds / 86400) + ' days';
const connection = document.getElementById('connection');
function say(text) {{
  if (connection.textContent === text) return;
  connection.textContent = text;
  connection.hidden = text === '';
}}
async function ask(address) {{
  const answer = await fetch(address, {{cache: 'no-store', signal: AbortSignal.timeout(10000)}});
  if (!answer.ok) throw new Error(answer.status);
  return answer;
}}
function show(fresh) {{
  for (const part of fresh.querySelectorAll('[data-part]')) {{
    const old = document.getElementById(part.id);
    const opened = [...old.querySelectorAll('details')].map(details => details.open);
    part.querySelectorAll('details').forEach((details, number) => details.open = opened[number] ?? false);
    if (old.innerHTML !== part.innerHTML) old.replaceChildren(...part.childNodes);
  }}
  document.title = fresh.title;
  document.body.dataset.revision = fresh.body.dataset.revision;
}}
async function refresh() {{
  try {{
    const status = await (await ask('/status.json')).json();
    if (status.revision !== document.body.dataset.revision) {{
      show(new DOMParser().parseFromString(await (await ask('/')).text(), 'text/html'));
    }}
    for (const [source, {{age_seconds: seconds}}] of Object.entries(status.sources)) {{
      for (const place of document.querySelectorAll(`[data-age="${{source}}"]`)) {{
        if (seconds !== null) place.textContent = age(seconds);
      }}
    }}
    document.getElementById('read').textContent = status.read.slice(0, 19).replace('T', ' ') + ' UTC';
    say('');
  }} catch (problem) {{
    say('The status page cannot be reached; what stands here is out of date.');
  }}
  setTimeout(refresh, {REFRESH_MILLISECONDS});
}}
document.getElementById('still').hidden = true;
setTimeout(refresh, {REFRESH_MILLISECONDS});
"""
