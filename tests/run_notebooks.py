"""Execute every notebook from scratch, in the environment that runs this file; stop at the first error."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> int:
    notebooks = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
        ).execute()
        print(f"{path.name}: {sum(cell.cell_type == 'code' for cell in notebook.cells)} cells ran")
    return 0 if notebooks else 1


if __name__ == "__main__":
    sys.exit(main())
