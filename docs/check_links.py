"""Check links inside the repository: of Markdown files and notebooks as they lie there, or of the pages of the built site.

`check_links.py` looks at every tracked .md and .ipynb file, `check_links.py docs/_build/html` at all pages of that folder.
A link to a file needs the file, one to a section needs a heading or an anchor of that name.
"""

import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
_CODE = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s\"[^\"]*\")?\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        # What a page loads by itself has to come with it.
        loaded = given.get("src") or (given.get("href") if tag == "link" else None)
        if loaded and urlsplit(loaded).netloc and given.get("rel") != "canonical":
            self.links.append(f"loaded from elsewhere: {loaded}")
        self.links += [given[name] for name in ("href", "src") if given.get(name)]


def _markdown(file: Path) -> str:
    if file.suffix == ".md":
        return file.read_text()
    cells = json.loads(file.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def _slug(heading: str) -> str:
    """The anchor that code hosts and MyST give a heading."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
    return kept.strip().replace(" ", "-")


@cache
def _parsed(file: Path) -> tuple[tuple[str, ...], frozenset[str]]:
    """Links and anchors of a file."""
    if file.suffix == ".html":
        page = _Page()
        page.feed(file.read_text())
        return tuple(page.links), frozenset(page.anchors)
    text = _markdown(file)
    anchors = {_slug(heading) for heading in _HEADING.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))}
    anchors |= set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))
    return tuple(_LINK.findall(_CODE.sub("", text))), frozenset(anchors)


def broken_links(file: Path) -> list[str]:
    """The links of one file that lead nowhere, each in a sentence."""
    broken = []
    for link in _parsed(file)[0]:
        parts = urlsplit(link)
        if link.startswith("loaded from elsewhere"):
            broken.append(f"{file}: {link}")
            continue
        if parts.scheme or parts.netloc:
            continue
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if not target.exists():
            broken.append(f"{file}: there is no {link}")
        elif target.suffix not in (".md", ".ipynb", ".html") or not parts.fragment:
            continue
        elif unquote(parts.fragment) not in _parsed(target)[1]:
            broken.append(f"{file}: {link} names a section that is not there")
    return broken


def main(folders: list[str]) -> int:
    """Print the broken links; the exit status is 1 where there are any."""
    if folders:
        files = sorted(file for folder in folders for file in Path(folder).rglob("*.html"))
    else:
        listed = subprocess.run(
            ["git", "ls-files", "*.md", "*.ipynb"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        files = [ROOT / name for name in listed.stdout.split("\n") if name]
    broken = [sentence for file in files for sentence in broken_links(file)]
    print("\n".join([*broken, f"{len(files)} files, {len(broken)} broken links"]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
