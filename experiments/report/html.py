"""Pieces of a self-contained web page. Whatever comes from a file is escaped here, and nowhere else."""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Nothing may be loaded from anywhere, whatever a file smuggled in; styles and pictures are part of the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { color-scheme: light dark; --ink: #1d2328; --soft: #5b6670; --page: #f6f7f8; --card: #fff; --line: #d8dde2;
  --accent: #0072b2; --yes: #007a5a; --no: #b84300; --open: #6b7680; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a2adb7; --page: #14181c;
  --card: #1d2328; --line: #39424b; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem clamp(.75rem, 3vw, 2rem) 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .8rem 0 .2rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1.02rem; margin: 1.1rem 0 .2rem; }
p, li { max-width: 46rem; } p { margin: .4rem 0 .8rem; } ul { margin: .2rem 0 .6rem; padding-left: 1.2rem; }
.soft, figcaption, footer { color: var(--soft); font-size: .9rem; }
.summary { background: var(--card); border: 1px solid var(--line); border-left: .3rem solid var(--accent);
  border-radius: .4rem; padding: .4rem 1rem .6rem; margin: 1rem 0; }
.summary.all { columns: 2 27rem; column-gap: 2.5rem; } .summary section { break-inside: avoid; padding-top: .1rem; }
.summary .verdict { font-size: 1.1rem; font-weight: 600; }
.glance { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr));
  margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-top: .3rem solid var(--open);
  border-radius: .4rem; padding: .5rem .9rem .6rem; }
.card.yes { border-top-color: var(--yes); } .card.no { border-top-color: var(--no); }
.card p { margin: .1rem 0; } .card .answer { font-size: 1.15rem; font-weight: 600; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  align-items: start; }
figure { margin: 0; } figure img { display: block; width: 100%; max-width: 38rem; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .4rem; padding: .3rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; background: var(--card);
  margin: .6rem 0 1rem; overflow-wrap: normal; }
details .scroll { max-height: 28rem; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--card); font-weight: 600; }
td.text, th.text { text-align: left; } tbody tr:last-child td { border-bottom: 0; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
  padding: .6rem .8rem; font-size: .85rem; overflow-wrap: normal; }
summary { cursor: pointer; color: var(--accent); }
@media screen and (prefers-color-scheme: dark) { figure img { filter: invert(.92) hue-rotate(180deg); } }
@media print { :root { color-scheme: light; font-size: 9.5pt; } @page { margin: 14mm; }
  body { max-width: none; padding: 0; background: #fff; }
  .glance { grid-template-columns: repeat(3, 1fr); } .figures { grid-template-columns: 1fr 1fr; }
  figure, .card, .summary section, tr { break-inside: avoid; } h1, h2, h3 { break-after: avoid; }
  .scroll, pre { overflow: visible; border: 0; } td.text { overflow-wrap: anywhere; min-width: 4.5em; }
  table { font-size: 7pt; } th { position: static; } th, td { white-space: normal; padding: .15rem .25rem; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; } details { display: none; } }
"""
DASH = "\u2013"


def escape(text: object) -> str:
    """A text as HTML that shows it and does nothing else."""
    return html.escape(str(text), quote=True)


def number(value: float | None, form: str = ".3g") -> str:
    """A number as text; a dash where there is none."""
    return DASH if value is None else format(value, form)


def paragraphs(sentences: Sequence[str]) -> str:
    """A list of sentences; nothing where there are none."""
    if not sentences:
        return ""
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], num_text: int = 1) -> str:
    """A table that scrolls within its own box.

    Args:
        columns: headings.
        rows: cells, as text or whole numbers.
        num_text: so many columns at the left hold text, the others numbers.
    """

    def cells(tag: str, values: Sequence[object]) -> str:
        kinds = (' class="text"' if index < num_text else "" for index in range(len(values)))
        return "".join(f"<{tag}{kind}>{escape(value)}</{tag}>" for kind, value in zip(kinds, values, strict=True))

    head = f"<tr>{cells('th', columns)}</tr>"
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def figures(files: Sequence[tuple[Path, str]]) -> str:
    """Pictures beside or below one another.

    As images, an SVG's scripts and links are dead, and its identifiers cannot clash with those of another.

    Args:
        files: SVG files and what they show, for those who do not see them.
    """
    parts = []
    for path, caption in files:
        data = base64.b64encode(path.read_bytes()).decode()
        image = f'<img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")
    return f'<div class="figures">{"".join(parts)}</div>'


def svg_of(png: Path, caption: str) -> tuple[Path, str]:
    """A figure's SVG file, which lies beside its PNG file, with what it shows; for `figures`."""
    return png.with_suffix(".svg"), caption


def folded(title: str, content: str) -> str:
    """Something that is shown on demand."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def code(lines: Sequence[str]) -> str:
    """Commands."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def embedded_json(data: Any) -> str:
    """Data for programs. With every `<` written as an escape, no text in it can end the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="results">{text}</script>'


def page(title: str, parts: Sequence[str]) -> str:
    """The whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
