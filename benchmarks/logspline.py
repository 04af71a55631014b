"""Logspline densities (Stone, Hansen, Kooperberg and Truong, 1997) by the C program of R's package `logspline`, without R.

`KAEM_LOGSPLINE` names the folder of the package's sources, unpacked (`nlsd.c` is in it or in its `src`); the program is
compiled with `cc` into a temporary folder. Nothing of the package is part of this project.
"""

import ctypes
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

# What the program takes from R: memory that lasts until a call returns, and a way to print.
_HEADER = """#include <stdlib.h>
char *R_alloc(size_t number, int size);
#define Rprintf(...) ((void)0)
"""
_MEMORY = """#include "R.h"
static void *kept[1 << 20];
static int number_kept = 0;
char *R_alloc(size_t number, int size) { return kept[number_kept++] = calloc(number, size); }
void release(void) { while (number_kept > 0) free(kept[--number_kept]); }
"""


def is_available() -> bool:
    """Whether the sources are named."""
    return bool(os.environ.get("KAEM_LOGSPLINE"))


@functools.cache
def _program():
    folder = Path(os.environ["KAEM_LOGSPLINE"])
    source = next((path for path in (folder / "nlsd.c", folder / "src" / "nlsd.c") if path.exists()), None)
    if source is None:
        raise FileNotFoundError(f"KAEM_LOGSPLINE is {folder}, and there is no nlsd.c in it, nor in its folder src")
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "R.h").write_text(_HEADER)
        memory, library = Path(place) / "memory.c", Path(place) / "logspline.so"
        memory.write_text(_MEMORY)
        command = ["cc", "-w", "-O2", "-shared", "-fPIC", f"-I{place}", str(source), str(memory), "-o", str(library)]
        subprocess.run([*command, "-lm"], check=True)
        return ctypes.CDLL(str(library))


def log_density(samples: np.ndarray, z: np.ndarray) -> np.ndarray | None:
    """Log-density at points `z`, shape (m,), fitted to samples, shape (n,); or None where the program reports failure.

    All its defaults: knots added and deleted, the number chosen by BIC, an unbounded domain.
    """
    size = np.array([-100] + 9 * [0], np.int32)
    program = _program()
    program.nlogcensorx(_pointer(size))
    largest, number = int(size[0]), len(samples)
    settings = np.array([number, 0, 0, 0, 1, 1, -1], np.int32)
    coefficients = np.concatenate([np.sort(np.asarray(samples, float)), np.zeros(largest)])
    penalty, likelihoods, knots = np.array([-1.0, 0.0, 0.0]), np.zeros(largest), np.zeros(largest)
    kinds = np.zeros(largest, np.int32)
    program.nlogcensor(*map(_pointer, (settings, coefficients, penalty, likelihoods, kinds, knots)))
    program.release()
    if 0 < settings[0] < 100:
        return None
    cubes = np.maximum(np.asarray(z)[:, None] - knots[: settings[1]], 0.0) ** 3
    return coefficients[0] + coefficients[1] * z + cubes @ coefficients[2 : 2 + settings[1]]


def _pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)
