"""Settings of the site: `make docs` builds it from this folder, the docstrings and the committed outputs of notebooks/."""

import inspect
import os
import shutil
import subprocess
import sys
import zlib
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent

project = "kaem-ppl"
author = "the authors of kaem-ppl"
release = version_of("kaem-ppl")
html_title = f"kaem-ppl {release}"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "myst_nb",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
# Excerpts of pages that a search found are fetched, which browsers refuse to files on disk.
html_show_search_summary = False
# A reader on a train: nothing is fetched from elsewhere.
html_theme_options = {"top_of_page_buttons": []}

# Notebooks carry their outputs, which `make notebooks` keeps fresh: the site shows them as they are.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

default_role = "literal"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
strip_signature_backslash = True


def write_inventories() -> dict[str, tuple[str, str]]:
    """The names of other projects that our pages link to, as intersphinx reads them: made of inventories/*.txt, no network.

    The first line of such a file is the address of a project's pages; the others are `name role page`, where a page that
    ends in # goes on with the name.
    """
    mapping = {}
    folder = HERE / "_build" / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted((HERE / "inventories").glob("*.txt")):
        base, *lines = file.read_text().splitlines()
        rows = [line.split() for line in lines if line]
        body = "".join(f"{name} py:{role} 1 {page}{'$' if page.endswith('#') else ''} -\n" for name, role, page in rows)
        head = f"# Sphinx inventory version 2\n# Project: {file.stem}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        target = folder / f"{file.stem}.inv"
        target.write_bytes(head.encode() + zlib.compress(body.encode()))
        mapping[file.stem] = (base, str(target))
    return mapping


intersphinx_mapping = write_inventories()

(HERE / "_build" / "help").mkdir(exist_ok=True)
for command in (
    "",
    "train",
    "train-sequential",
    "tune",
    "convert",
    "data",
    "sample",
    "evaluate",
    "diagnose",
    "evidence",
    "plot",
    "report",
    "traverse",
    "interpolate",
):
    words = [sys.executable, "-m", "kaem_ppl.cli", *command.split(), "--help"]
    text = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "88"}).stdout
    (HERE / "_build" / "help" / f"{command or 'kaem'}.txt").write_text(text)

# Sphinx reads pages below this folder only.
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
for notebook in (HERE / "notebooks").glob("*.ipynb"):
    notebook.write_text(notebook.read_text().replace("](../docs/", "](../"))


# Fields whose defaults are functions.
_FIELDS_THAT_CALL = ("activation", "output", "resampler", "log_prior", "sample_prior")


def skip_fields(app, what, name, value, skip, options):
    """Leave out what is documented elsewhere."""
    # Fields of dataclasses and of named tuples stand among the arguments, and NumPyro's methods in NumPyro's pages.
    if what != "class":
        return skip
    is_method = inspect.isroutine(value) or isinstance(value, property | classmethod | staticmethod)
    return skip or not is_method or name in _FIELDS_THAT_CALL


def link_to_copies(app, name, source):
    """Links to notebooks, which are true in the repository, lead to their copies among the pages."""
    source[0] = source[0].replace("](../../notebooks/", "](../notebooks/")
    if name == "index":
        source[0] = source[0].replace("](../notebooks/", "](notebooks/")


def resolve_by_last_name(app, env, node, contnode):
    """Types are annotated by the file that defines them, and documented by the name that users import."""
    name = node.get("reftarget", "").rsplit(".", 1)[-1]
    domain = env.get_domain("py")
    for full in (f"kaem_ppl.{name}", f"kaem_ppl.inference.{name}", f"kaem_ppl.models.{name}"):
        if name and full in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)
    return None


def setup(app):
    """Sphinx calls this one."""
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("source-read", link_to_copies)
    app.connect("missing-reference", resolve_by_last_name)
