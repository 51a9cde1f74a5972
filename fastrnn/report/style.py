"""The report's style sheet."""

from __future__ import annotations

from fastrnn.report.colours import SIGNED, STRENGTH, css_ramp

_VARIABLES = {
    "light": """
    --paper: #ffffff; --card: #faf9f6; --ink: #23272e; --soft: #666d78; --line: #e2e2de;
    --c0: #2f6fb4; --c1: #cf5a1f; --c2: #2c8a57; --c3: #8a4fb0; --c4: #b08a00;
    --low: #4a86c5; --high: #e08a4a; --between: #eceae3;
    --trouble: #c0392b; --warning: #b87500; --note: #5b6b7d; --good: #2c8a57;""",
    "dark": """
    --paper: #14161b; --card: #1d2028; --ink: #e4e6ea; --soft: #9aa2ae; --line: #333843;
    --c0: #7ab4f0; --c1: #f59a63; --c2: #6fcf97; --c3: #c79af0; --c4: #e2c044;
    --low: #4f8fd6; --high: #d98444; --between: #2a2e38;
    --trouble: #ff7b6b; --warning: #f0b44c; --note: #9db0c6; --good: #6fcf97;""",
}


def _variables(scheme: str) -> str:
    return (
        f"{_VARIABLES[scheme]}\n    --strength: {css_ramp(STRENGTH[scheme])};\n"
        f"    --signed: {css_ramp(SIGNED[scheme])};"
    )


STYLE = (
    ":root { color-scheme: light dark;"
    + _variables("light")
    + "\n}\n@media (prefers-color-scheme: dark) { :root {"
    + _variables("dark")
    + "\n} }\n"
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header { max-width: 1320px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 28px; }
main { padding-bottom: 48px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 4px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 22px 0 8px; }
p { margin: 0 0 12px; max-width: 78ch; }
p.about, .soft { color: var(--soft); }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 14px; margin-bottom: 4px; }
.unit { color: var(--soft); font-size: 13px; }

.findings { display: grid; gap: 12px; margin: 20px 0 8px; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.findings li { background: var(--card); border-left: 4px solid var(--tone); padding: 12px 16px;
  border-radius: 0 6px 6px 0; }
.findings h3 { margin: 0 0 4px; font-size: 16px; }
.findings p { margin: 0; }
.findings p + p { margin-top: 8px; }
.findings .level { color: var(--tone); font-size: 12px; font-weight: 600; letter-spacing: .06em;
  text-transform: uppercase; display: block; }
.trouble { --tone: var(--trouble); } .warning { --tone: var(--warning); }
.note { --tone: var(--note); } .good { --tone: var(--good); }

.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 22px 6px 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: baseline; }
th { color: var(--soft); font-weight: 500; }

.charts { display: grid; gap: 24px 32px; margin-top: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); }
.keys { display: flex; flex-wrap: wrap; gap: 0 14px; font-size: 13px; }
.key em { font-style: normal; color: var(--soft); font-variant-numeric: tabular-nums; }
.key i { display: inline-block; width: 16px; height: 0; border-top: 2.5px solid var(--c);
  margin-right: 5px; vertical-align: middle; }
.key i.dashed { border-top-style: dotted; }
.key i.low, .key i.high { width: 10px; height: 10px; border: 0; background: var(--c); }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .low { --c: var(--low); } .high { --c: var(--high); }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-size: 12px; fill: var(--soft); text-anchor: middle;
  font-variant-numeric: tabular-nums; }
svg text.end { text-anchor: end; } svg text.start { text-anchor: start; }
svg .grid { stroke: var(--line); fill: none; }
svg .rule { stroke: var(--soft); stroke-dasharray: 5 4; fill: none; }
svg .line { stroke: var(--c); stroke-width: 2; fill: none; stroke-linejoin: round; }
svg .line.dashed { stroke-dasharray: 2 4; }
svg circle, svg path.low, svg path.high { fill: var(--c); }
.shares svg { background: var(--between); height: 80px; }
.ends { display: flex; justify-content: space-between; font-size: 12px; color: var(--soft); }

.blocks { display: grid; gap: 12px 20px; margin-top: 6px;
  grid-template-columns: repeat(auto-fill, minmax(min(44%, 250px), 1fr)); }

.heats { display: grid; gap: 26px 36px; margin-top: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); }
.frame { display: grid; grid-template-columns: 46px minmax(0, 1fr); margin-top: 4px; }
.frame > .label { grid-column: 2; }
.image, .strip { background: var(--card); line-height: 0; }
.image img, .strip img { width: 100%; display: block; image-rendering: pixelated; }
.y, .x { position: relative; font-size: 12px; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.x { height: 20px; }
.frame > .x { grid-column: 2; }
.y .tick { position: absolute; right: 8px; transform: translateY(-50%); white-space: nowrap; }
.x .tick { position: absolute; top: 2px; transform: translateX(-50%); white-space: nowrap; }
.y .label { position: absolute; left: 0; top: 50%; writing-mode: vertical-rl;
  transform: translateY(-50%) rotate(180deg); }
.label { font-size: 12px; color: var(--soft); text-align: center; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: flex-start;
  margin: 14px 0 0 46px; }
.legend > div { flex: 0 1 340px; min-width: 200px; padding: 0 14px; }
.ramp { height: 10px; margin-top: 4px; border-radius: 2px; }
.ramp.strength { background: var(--strength); } .ramp.signed { background: var(--signed); }

.scroll { overflow-x: auto; padding-bottom: 4px; }
.scroll .frame { min-width: var(--least); }
.strip { grid-column: 2; margin-top: 3px; }
.scroll figure + figure { margin-top: 14px; }
.tokens { display: grid; grid-column: 2; justify-items: center; padding-top: 4px;
  font: 12px/1.2 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.tokens.words span { writing-mode: vertical-rl; max-height: 11em; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.tokens .blank { color: var(--soft); opacity: .7; }

@media (max-width: 600px) {
  main, header { padding-left: 16px; padding-right: 16px; }
  h1 { font-size: 22px; }
  .legend { margin-left: 0; }
  th, td { padding-right: 16px; }
}
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""
)
