"""One page of HTML with everything in it: sections of text, tables and pictures, and nothing that is fetched."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; border-block: 1px solid var(--line); padding: .4rem 0; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; opacity: .75; }
img { max-width: 100%; height: auto; background: white; display: block; border-radius: 4px; }
figure .wide img { min-width: 34rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child { white-space: nowrap; overflow-wrap: normal; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; border-radius: 4px; font-size: .85rem; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 0 2rem; }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem 2.4rem; padding: 0; list-style: none; }
.numbers b { display: block; font-size: 1.4rem; } .numbers span { font-size: .9rem; opacity: .75; }
"""


class Page:
    """Collects sections, in their order."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._sections: list[tuple[str, list[str]]] = [("", [])]

    def section(self, title: str) -> None:
        """What follows stands under this title."""
        self._sections.append((title, []))

    def text(self, text: str) -> None:
        """A paragraph."""
        self._add(f"<p>{html.escape(text)}</p>")

    def listing(self, text: str) -> None:
        """Text as a terminal shows it."""
        self._add(f"<pre>{html.escape(text.rstrip())}</pre>")

    def numbers(self, found: Iterable[tuple[str, str]]) -> None:
        """Numbers that matter, each with what it is."""
        rows = (f"<li><b>{html.escape(value)}</b><span>{html.escape(name)}</span></li>" for name, value in found)
        self._add(f'<ul class="numbers">{"".join(rows)}</ul>')

    def figure(self, figure: Figure, caption: str) -> None:
        """A figure of matplotlib."""
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=130)
        self._picture(file.getvalue(), "png", caption)

    def file(self, path: Path, caption: str) -> None:
        """A picture that was written before."""
        self._picture(path.read_bytes(), path.suffix[1:], caption)

    def tables(self, tables: Iterable[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        """Narrow tables of two columns, beside each other where there is room."""
        parts = []
        for title, rows in tables:
            cells = "".join(f"<tr><td>{html.escape(a)}</td><td>{html.escape(b)}</td></tr>" for a, b in rows)
            parts.append(f'<div><h3>{html.escape(title)}</h3><div class="wide"><table>{cells}</table></div></div>')
        self._add(f'<div class="tables">{"".join(parts)}</div>')

    def to_html(self) -> str:
        """The page; sections without content are left out."""
        shown = [(title, parts) for title, parts in self._sections if parts]
        links = "".join(f'<a href="#{_anchor(title)}">{html.escape(title)}</a>' for title, _ in shown if title)
        body = "".join(
            (f'<h2 id="{_anchor(title)}">{html.escape(title)}</h2>\n' if title else "") + "\n".join(parts) + "\n"
            + (f"<nav>{links}</nav>\n" if not title else "")
            for title, parts in shown
        )  # fmt: skip
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self._title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            f"<h1>{html.escape(self._title)}</h1>\n{body}</body>\n</html>\n"
        )

    def _picture(self, content: bytes, kind: str, caption: str) -> None:
        data, said = base64.b64encode(content).decode(), html.escape(caption)
        alternative = html.escape(caption, quote=True)
        self._add(
            f'<figure><div class="wide"><img src="data:image/{kind};base64,{data}" alt="{alternative}"></div>'
            f"<figcaption>{said}</figcaption></figure>"
        )

    def _add(self, part: str) -> None:
        self._sections[-1][1].append(part)


def _anchor(title: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in title.lower()).split())
