"""Training and evaluation mode of Flax NNX modules that a model registers by NumPyro's `nnx_module`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

type Mode = Literal["training", "evaluation"]

_mode: ContextVar[Mode | None] = ContextVar("mode", default=None)


@contextmanager
def module_mode(mode: Mode) -> Iterator[None]:
    """Inside, `nnx_module` sees every module as `module.train()` or `module.eval()` would leave it.

    The module itself stays as it is. The mode of modules of Flax Linen is an argument of the model.
    """
    _watch_split()
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def _watch_split() -> None:
    """Make `flax.nnx.split` heed the mode: it is the first thing that `nnx_module` does with a module.

    Neither NumPyro nor Flax has a place to say this; outside `module_mode` nothing changes.
    """
    nnx: Any = sys.modules.get("flax.nnx")
    if nnx is None or hasattr(nnx.split, "heeds_mode"):
        return
    split = nnx.split

    def split_in_mode(node: Any, *args: Any, **kwargs: Any) -> Any:
        mode = _mode.get()
        if mode is not None and isinstance(node, nnx.Module):
            is_evaluated = mode == "evaluation"
            node = nnx.view(
                node, deterministic=is_evaluated, use_running_average=is_evaluated, raise_if_not_found=False
            )
        return split(node, *args, **kwargs)

    split_in_mode.heeds_mode = True
    nnx.split = split_in_mode
