#pragma once

namespace qaas::report {

/// The page's style sheet. Colours by role, in a light and a dark set; every pair of text and
/// ground has a contrast of at least 4.5 to 1.
inline constexpr char kPageStyle[] = R"css(
:root{color-scheme:light dark;--page:#f7f7f5;--card:#fff;--ink:#151514;--soft:#52514e;--tick:#686762;
--grid:#e6e5e0;--axis:#a5a49d;--original:#85847d;--baseline:#d9622b;--stage:#86b6ef;--final:#2a78d6;
--forecast:#7a5cc4;--accent:#1c5cab;--note:#fdf3dc;--note-edge:#d9a520;
--h0:#edf4fd;--h1:#cde2fb;--h2:#9ec5f4;--h3:#6da7ec;--h4:#4d94e6;--h5:#1c5cab;--h6:#0d366b;
--on-low:#151514;--on-4:#151514;--on-high:#fff}
@media (prefers-color-scheme:dark){:root{--page:#141413;--card:#1d1d1c;--ink:#f4f3ef;--soft:#c3c2b7;
--tick:#a3a29a;--grid:#32322f;--axis:#6d6c66;--original:#96958d;--baseline:#e8733f;--stage:#3f6ea8;
--final:#5ea2ee;--forecast:#a58be6;--accent:#86b6ef;--note:#352c14;--note-edge:#b98b16;
--h0:#1f2a38;--h1:#17385f;--h2:#1b4a83;--h3:#2360a8;--h4:#4d94e6;--h5:#86b6ef;--h6:#cde2fb;
--on-low:#fff;--on-4:#0b0b0b;--on-high:#0b0b0b}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:820px;margin:0 auto;padding:40px 20px 64px}
header p.kicker{margin:0;color:var(--soft);font-size:14px}
h1{font-size:30px;line-height:1.2;margin:4px 0 10px;overflow-wrap:anywhere}
h2{font-size:20px;margin:0 0 4px}
h3{font-size:15px;margin:24px 0 6px}
p{margin:6px 0 12px}
.verdict{font-size:18px;line-height:1.5;max-width:70ch}
.chips{display:flex;flex-wrap:wrap;gap:6px;padding:0;margin:14px 0 22px;list-style:none}
.chips li{border:1px solid var(--axis);border-radius:999px;padding:2px 11px;font-size:13px;
color:var(--soft);overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:0 0 24px}
.tile{background:var(--card);border:1px solid var(--grid);border-radius:10px;padding:14px 16px}
.tile b{display:block;font-size:27px;line-height:1.25;font-weight:650;white-space:nowrap}
.tile span{display:block;color:var(--soft);font-size:13.5px;line-height:1.4}
section{background:var(--card);border:1px solid var(--grid);border-radius:12px;padding:22px 24px;
margin:0 0 20px}
section>p.lead{color:var(--soft);font-size:14.5px;margin:0 0 14px;max-width:76ch}
svg{display:block;width:100%;height:auto}
.scroll{overflow-x:auto}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--ink)}
svg .tick{fill:var(--tick)}
svg .label{font-size:13px}
svg .value{font-size:13px;font-weight:600}
svg .cell-text{font-size:11.5px}
.grid,.row{stroke:var(--grid)}
.axis{stroke:var(--axis)}
.stem{stroke:var(--axis);stroke-width:2}
.whisker{stroke-width:2.5;opacity:.65}
.dot{stroke:var(--card);stroke-width:1.5}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.faint{opacity:.35}
.line.faint{stroke-width:1.2}
.spark .line{stroke-width:1.8}
.frame{fill:none;stroke:var(--baseline);stroke-width:2.5}
.unknown{fill:none;stroke:var(--grid)}
.on-h0,.on-h1,.on-h2,.on-h3{fill:var(--on-low)!important}
.on-h4{fill:var(--on-4)!important}
.on-h5,.on-h6{fill:var(--on-high)!important}
.fill-original{fill:var(--original)}.line-original{stroke:var(--original)}.bg-original{background:var(--original)}
.fill-baseline{fill:var(--baseline)}.line-baseline{stroke:var(--baseline)}.bg-baseline{background:var(--baseline)}
.fill-stage{fill:var(--stage)}.line-stage{stroke:var(--stage)}.bg-stage{background:var(--stage)}
.fill-final{fill:var(--final)}.line-final{stroke:var(--final)}.bg-final{background:var(--final)}
.fill-forecast{fill:var(--forecast)}.line-forecast{stroke:var(--forecast)}.bg-forecast{background:var(--forecast)}
.h0{fill:var(--h0)}.h1{fill:var(--h1)}.h2{fill:var(--h2)}.h3{fill:var(--h3)}.h4{fill:var(--h4)}
.h5{fill:var(--h5)}.h6{fill:var(--h6)}
.bg-h0{background:var(--h0)}.bg-h1{background:var(--h1)}.bg-h2{background:var(--h2)}
.bg-h3{background:var(--h3)}.bg-h4{background:var(--h4)}.bg-h5{background:var(--h5)}.bg-h6{background:var(--h6)}
.legend{color:var(--soft);font-size:13px;margin:6px 0 14px}
.key{display:inline-block;margin-right:16px}
.key-line,.key-dot,.key-frame,.step{display:inline-block;vertical-align:middle;margin-right:6px}
.key-line{width:20px;height:3px;border-radius:2px}
.key-dot{width:10px;height:10px;border-radius:50%}
.key-frame{width:16px;height:13px;border:2.5px solid var(--baseline);border-radius:3px}
.step{width:22px;height:11px;margin-right:1px}
.sparks{display:grid;grid-template-columns:repeat(auto-fill,minmax(158px,1fr));gap:14px 16px}
.sparks figure{margin:0}
.sparks figcaption{font-size:12.5px;color:var(--soft);line-height:1.4}
.sparks figcaption b{color:var(--ink)}
.note{background:var(--note);border-left:4px solid var(--note-edge);border-radius:4px;
padding:10px 14px;font-size:14.5px}
.table{overflow-x:auto;margin:6px 0 12px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);font-size:13px;padding-bottom:4px}
th,td{padding:5px 10px;border-bottom:1px solid var(--grid);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal}
thead tr+tr th:first-child{text-align:right;padding-left:10px}
.tight th,.tight td{padding:5px 7px;font-size:13.5px}
th[colspan]{text-align:center}
thead th{color:var(--soft);font-weight:600;font-size:13px;border-bottom-color:var(--axis)}
tbody th{font-weight:500}
tr.strong th,tr.strong td{font-weight:650}
small{color:var(--soft);font-weight:400;font-size:12.5px}
details{margin:8px 0}
summary{cursor:pointer;color:var(--accent);font-size:14.5px}
pre{overflow-x:auto;background:var(--page);border:1px solid var(--grid);border-radius:8px;padding:12px 14px;
font:12.5px/1.5 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:13px}
@media (max-width:560px){main{padding:24px 12px 48px}section{padding:18px 14px}h1{font-size:25px}}
@media print{:root{color-scheme:light}body{background:#fff;font-size:11pt}main{max-width:none;padding:0}
section,.tile{border-color:#ccc;break-inside:avoid-page}section.long{break-inside:auto}
.scroll{overflow:visible}svg{min-width:0!important}
figure,table,svg{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
)css";

}  // namespace qaas::report
