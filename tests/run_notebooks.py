"""Execute every notebook from scratch, in the environment that runs this file, one for each core; fail if one does."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(path: Path) -> str:
    """Run all cells, and say how many there were."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    return f"{path.name}: {sum(cell.cell_type == 'code' for cell in notebook.cells)} cells ran"


def main() -> int:
    notebooks = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        # The longest are the last.
        for done in [pool.submit(execute, path) for path in reversed(notebooks)]:
            print(done.result())
    return 0 if notebooks else 1


if __name__ == "__main__":
    sys.exit(main())
