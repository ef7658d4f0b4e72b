"""The report page's style sheet: system fonts, light and dark, 390 px and up."""

STYLE = """
:root { color-scheme: light dark;
  --page: #f5f7f9; --card: #ffffff; --ink: #1b2430; --soft: #56616e; --rule: #d4dae1;
  --main: #0063a8; --reference: #b84a00; --quiet: #87919c; --alarm: #a3211b; --wash: #fdeeec;
  --join: #8a8a2b; --profile: #c0669a; --probe: #d18f00; --ship: #0072b2; --report: #01865f;
  --register: #d55e01; --acknowledge: #7a5fb0; }
@media (prefers-color-scheme: dark) { :root {
  --page: #11161c; --card: #1a2129; --ink: #e8edf2; --soft: #a9b4c0; --rule: #333d48;
  --main: #6cb8f5; --reference: #f59a5c; --quiet: #7f8a96; --alarm: #ff9d94; --wash: #3a1f1e;
  --join: #c2c255; --profile: #dd92bc; --probe: #f0b13c; --ship: #3f9ad6; --report: #35b98f;
  --register: #f08540; --acknowledge: #a08ad6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.15rem; margin: 0 0 6px; }
h3 { font-size: 1rem; margin: 0 0 4px; }
p { margin: 0 0 8px; }
.soft { color: var(--soft); font-size: 0.9rem; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 20px 24px; margin-top: 20px; }
.keys { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin-top: 20px; }
.key { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 14px 16px; }
.key b { display: block; font-size: 1.6rem; line-height: 1.25; color: var(--main);
  font-variant-numeric: tabular-nums; }
.words { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 32px; }
.words section:last-child { grid-column: 1 / -1; }
.alarm { background: var(--wash); border-color: var(--alarm); }
.alarm h2, .alarm h3, .alarm-words { color: var(--alarm); }
figure { margin: 8px 0 0; }
figure svg { display: block; width: 100%; height: auto; }
figure .narrow { display: none; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 8px; }
.scroll { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums;
  width: 100%; overflow-wrap: normal; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--rule); text-align: right;
  vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td.text, th.text { text-align: left; }
tbody th { font-weight: 400; }
table.wide th:first-child { position: sticky; left: 0; background: var(--card); min-width: 116px; }
table.wide { font-size: 0.85rem; }
table.wide th, table.wide td { padding: 7px 8px; }
table.wide td.name { min-width: 110px; max-width: 190px; overflow-wrap: anywhere; }
table.wide td.gain { min-width: 104px; }
table.wide .whole { white-space: nowrap; }
tr.main th, tr.main td { font-weight: 700; color: var(--main); }
tr.incomplete th:first-child { color: var(--alarm); }
td.long { overflow-wrap: anywhere; min-width: 160px; }
details { margin-top: 12px; }
summary { cursor: pointer; font-weight: 600; }
a { color: var(--main); }
:focus-visible { outline: 3px solid var(--main); outline-offset: 2px; border-radius: 3px; }
section:focus { outline: none; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 10px; font-size: 0.9rem; }
[hidden] { display: none; }
h1:focus { outline: none; }
.tools { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; margin: 10px 0;
  font-size: 0.9rem; }
button, input, select { font: inherit; color: var(--ink); background: var(--page);
  border: 1px solid var(--rule); border-radius: 6px; padding: 6px 10px; }
button:disabled { color: var(--quiet); }
th button { border: 0; background: none; padding: 4px 0; font-weight: 600; color: var(--soft);
  cursor: pointer; white-space: nowrap; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
figure + div h3, .soft + h3 { margin-top: 18px; }
table.visits td, table:not(.wide) td:not(.text) { white-space: nowrap; }
dl.facts, dl.bars { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px;
  margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
dl.bars dd { display: flex; align-items: center; gap: 10px; font-size: 0.9rem; }
dl.bars i { height: 14px; min-width: 2px; border-radius: 2px; flex: none; }
.graph text { fill: var(--ink); font-size: 13px; } .graph .quiet { fill: var(--soft); }
.graph a text { fill: var(--main); text-decoration: underline; }
.graph a .quiet { text-decoration: none; }
.graph .edge { fill: none; stroke: var(--quiet); stroke-width: 1.4; opacity: 0.7; }
.graph .dot { fill: var(--quiet); } .graph .self { fill: var(--main); }
.graph .axis, .spread .axis { fill: none; stroke: var(--rule); }
.graph .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.spread { width: 220px; height: 18px; vertical-align: middle; }
.spread .whisker { stroke: var(--quiet); stroke-width: 2; }
.spread rect { fill: var(--main); opacity: 0.45; } .spread circle { fill: var(--main); }
.spread .median { stroke: var(--ink); stroke-width: 2; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 2px;
  margin-right: 6px; vertical-align: -1px; }
h2.visit { margin-top: 28px; }
@media (max-width: 700px) {
  .extra { display: none; }
  th, td { padding: 7px 6px; }
  .tools label { width: 100%; } .tools input { width: 70%; }
  dl.bars dd { flex-wrap: wrap; gap: 0 10px; }
  main { padding: 20px 12px 48px; }
  .card { padding: 16px 16px; }
  .keys { grid-template-columns: 1fr 1fr; }
  .words { grid-template-columns: 1fr; }
  figure .wide { display: none; } figure .narrow { display: block; }
}
@media print { body { background: none; } .card, .key { break-inside: avoid; } }
"""
