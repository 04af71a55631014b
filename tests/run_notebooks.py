"""Execute every notebook from scratch, one for each core; fail if one does, or if the outputs it carries are out of date.

Numbers that a cell prints must be those it carries within a tolerance, a tenth unless the cell's metadata has a
`tolerance` of its own; words must be the same; pictures must be there. Of a cell with the tag `varies`, which prints times,
only the kinds of its outputs are compared. `run_notebooks.py --write [FILE ...]` puts fresh outputs into the notebooks.
"""

import argparse
import base64
import io
import os
import re
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

FOLDER = Path(__file__).parent.parent / "notebooks"
TOLERANCE, ABSOLUTE = 0.1, 0.02
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?")


def execute(path: Path) -> tuple[nbformat.NotebookNode, float]:
    """Run all cells of a notebook; return it with the outputs as they are kept, and the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    return strip(notebook), time.monotonic() - start


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave what a reader sees: text, tables and small pictures, without times, counters and warnings."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                continue
            if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
            if "execution_count" in output:
                output.execution_count = None
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _shrink(data["image/png"])
                # The other form is the address of a Python object.
                data.pop("text/plain", None)
            kept.append(output)
        cell.outputs = kept
    return notebook


def _shrink(png: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(128)
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def differences(old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> list[str]:
    """What outputs of the same cells do not agree on, each in a sentence."""
    found = []
    for index, (before, after) in enumerate(zip(old.cells, new.cells, strict=True)):
        if before.cell_type != "code":
            continue
        was, now = ([_kind(output) for output in cell.outputs] for cell in (before, after))
        if was != now:
            found.append(f"cell {index} carries {was}, and a run gives {now}")
            continue
        text = "\n".join(map(_text, after.outputs))
        if str(FOLDER.parent) in text or str(Path.home()) in text:
            found.append(f"cell {index} prints a path of this machine")
        if "varies" in before.metadata.get("tags", ()):
            continue
        tolerance = before.metadata.get("tolerance", TOLERANCE)
        found += [f"cell {index}: {sentence}" for sentence in _compare(before.outputs, after.outputs, tolerance)]
    return found


def _kind(output: nbformat.NotebookNode) -> str:
    return "picture" if "image/png" in output.get("data", {}) else output.output_type


def _text(output: nbformat.NotebookNode) -> str:
    return output.get("text", "") or output.get("data", {}).get("text/plain", "")


def _compare(old: list, new: list, tolerance: float) -> list[str]:
    was, now = ("\n".join(map(_text, outputs)) for outputs in (old, new))
    words = [" ".join(re.sub(r"[-\s.]+", " ", _NUMBER.sub("#", text)).split()) for text in (was, now)]
    if words[0] != words[1]:
        return [f"the words are others: {was!r} and now {now!r}"]
    numbers = [[float(number.replace(",", "")) for number in _NUMBER.findall(text)] for text in (was, now)]
    return [
        f"{a} is {b} now"
        for a, b in zip(*numbers, strict=True)
        if abs(a - b) > ABSOLUTE + tolerance * max(abs(a), abs(b))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put fresh outputs into the notebooks")
    parser.add_argument("notebooks", nargs="*", type=Path, help="those to run (all)")
    options = parser.parse_args()
    notebooks = options.notebooks or sorted(FOLDER.glob("*.ipynb"))
    problems, failed = [], []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = {path: pool.submit(execute, path.absolute()) for path in notebooks}
        for path, job in jobs.items():
            try:
                fresh, seconds = job.result()
            except CellExecutionError as error:
                print(error)
                failed.append(path.name)
                continue
            found = differences(nbformat.read(path, as_version=4), fresh)
            problems += [f"{path.name}: {sentence}" for sentence in found]
            print(f"{path.name}: {sum(cell.cell_type == 'code' for cell in fresh.cells)} cells ran, {seconds:.0f} s")
            if options.write:
                nbformat.write(fresh, path)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("\n".join([*problems, f"{used.ru_utime + used.ru_stime:.0f} s of processor time"]))
    if problems and not options.write:
        print("Outputs are out of date: `python tests/run_notebooks.py --write` renews them; read them afterwards.")
    return 1 if failed or not notebooks or (problems and not options.write) else 0


if __name__ == "__main__":
    sys.exit(main())
