"""How values of this package print: in a few lines, whatever the size of their arrays, and in a notebook."""

import html
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def describe_arrays(arrays: Mapping[str, Any]) -> list[str]:
    """A line for each name: the shape and type of an array, or how many numbers a tree of arrays holds."""
    width = max(map(len, arrays), default=0)
    return [f"  {name:{width}}  {describe_array(value)}" for name, value in arrays.items()]


def describe_array(value: Any) -> str:
    """Shape and type of an array, or how many numbers a tree of arrays holds."""
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and hasattr(leaves[0], "shape"):
        return f"{leaves[0].dtype}{list(leaves[0].shape)}"
    return f"{len(leaves)} arrays, {sum(int(np.size(leaf)) for leaf in leaves):,} numbers"


def describe_numbers(value: Any) -> str:
    """A few numbers, where they are known, and otherwise shape and type."""
    if isinstance(value, Tracer) or not hasattr(value, "shape") or np.size(value) > 4:
        return describe_array(value) if hasattr(value, "shape") else "?"
    return f"({', '.join(f'{x:.4g}' for x in np.ravel(np.asarray(value)))})"


def to_html(text: str) -> str:
    """Text as a notebook shows it, line by line."""
    return f"<pre>{html.escape(text)}</pre>"
