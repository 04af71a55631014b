"""How programs are compiled that are never a part of another one."""

import os
import re
from functools import partial

import jax

# At its third level, the default, LLVM takes 1.4 times as long as at its second, and our steps run no faster on a CPU
# (`benchmarks/posterior_steps.py`). A level that XLA_FLAGS names is kept.
_named = re.findall(r"xla_backend_optimization_level=(\d+)", os.environ.get("XLA_FLAGS", ""))

jit_outermost = partial(jax.jit, compiler_options={"xla_backend_optimization_level": int(_named[-1]) if _named else 2})
"""`jax.jit` for a function that no other traced function calls: JAX refuses options of a program within a program."""
