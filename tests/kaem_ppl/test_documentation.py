"""What pages say is what the code does: every warning has its entry, and code of the README prints what stands below it."""

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "warnings.md"
# Wherever a sentence is passed to one of these, a user may read it.
SPEAKS = ("warnings.warn", "warn", "print_warning", "_logger.warning")


def calls():
    for room in ("kaem_ppl", "models", "inference"):
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    yield ast.unparse(node.func), node


def literals(node):
    """Constant parts of a string, longest first."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return sorted(texts, key=len, reverse=True)


def test_every_check_has_an_entry():
    headings = set(re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE))
    names = set()
    for function, node in calls():
        if function in ("report.check", "Check") and isinstance(node.args[0], ast.Constant):
            names.add(node.args[0].value)
        if function == "check_agreement":
            names.add(f"agreement of {node.args[2].value}")
    assert len(names) >= 25
    assert names <= headings, f"without an entry: {names - headings}"
    # Of a single chain there is a sentence, and no check.
    assert headings <= names | {"one chain"}, f"of no check: {headings - names}"


def test_every_warning_has_an_entry():
    page = " ".join(PAGE.read_text().split())
    missing = []
    for function, node in calls():
        if function not in SPEAKS or not node.args or not (texts := literals(node.args[0])):
            continue
        # Some words of it in a row: sentences are shortened on the page.
        words = [piece.strip(" .:,;%s") for text in texts for piece in re.split(r"[.:;]|%s", text)]
        if not any(len(piece) > 15 and piece in page for piece in words):
            missing.append(texts[0])
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "num_blocks"),
    [("README.md", 4), ("docs/index.md", 1), ("docs/how-to/your_data.md", 1), ("docs/how-to/bayes_factors.md", 1)],
)
def test_code_of_a_page(page, num_blocks):
    # A block of code, and where one follows the text that it prints.
    block = r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?"
    blocks = re.findall(block, (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == num_blocks
    namespace: dict = {"__name__": "page"}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), namespace)
        assert printed.getvalue() == expected
