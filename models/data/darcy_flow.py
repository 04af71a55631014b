"""Darcy flow: the pressure of a fluid in a random porous medium, by solving the equation.

    -div(k grad u) = f in the unit square,    u = 0 on its boundary

k is a function of a Gaussian random field (Li et al. 2021, arXiv 2010.08895, appendix A.3.2), and f = 1.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaem_ppl.arguments import set_counts, set_number

from .dataset import Dataset
from .fetch import DataFileError

_logger = logging.getLogger(__name__)
# Eigenvalues of the covariance (-Laplace + 9)^-2 are (pi^2 |n|^2 + 9)^-2.
_SHIFT = 9.0


@dataclass(frozen=True)
class ThresholdPermeability:
    """k = 12 where the Gaussian field is positive, 3 where it is negative (Li et al. 2021).

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import ThresholdPermeability
        >>> ThresholdPermeability()(np.array([-1.0, 1.0]))
        array([ 3., 12.])
    """

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """Permeability from a field of `gaussian_fields`."""
        return np.where(field >= 0, 12.0, 3.0)


@dataclass(frozen=True)
class LogNormalPermeability:
    """log k is the Gaussian field, scaled.

    Attributes:
        log_std: standard deviation of log k, averaged over the square.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import LogNormalPermeability
        >>> LogNormalPermeability(0.5)(np.zeros((2, 2)))
        array([[1., 1.],
               [1., 1.]])
    """

    log_std: float = 1.0

    def __post_init__(self) -> None:
        set_number(self, "log_std", above=0)

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """Permeability from a field of `gaussian_fields`."""
        # The mean square of every cosine of the expansion is 1, so the mean variance is the sum of the eigenvalues.
        variance = np.square(_standard_deviations(field.shape[-1])).sum()
        return np.exp(field * self.log_std / np.sqrt(variance))


type Permeability = ThresholdPermeability | LogNormalPermeability


@dataclass(frozen=True)
class DarcyFlow:
    """Pressures of random media, in units of the largest one of the training fields.

    The first time, the equation is solved, a few milliseconds for each field, and the fields are saved in a file.

    Attributes:
        resolution: cells along each side.
        num_train: fields to train on.
        num_test: fields to test on.
        permeability: k as a function of a Gaussian field.
        seed: of the Gaussian fields. Each has its own stream: the first hundred are the same in a set of thousands.

    Raises:
        ValueError: a number is not positive, or `seed` is negative.

    Example:
        >>> from kaem_ppl.models import DarcyFlow
        >>> DarcyFlow(resolution=8, num_train=4).num_test
        100
    """

    resolution: int = 32
    num_train: int = 1000
    num_test: int = 100
    permeability: Permeability = ThresholdPermeability()
    seed: int = 0

    folder = "darcy_flow"
    splits = ("train", "test")

    def __post_init__(self) -> None:
        set_counts(self, resolution=1, num_train=1, num_test=1, seed=0)

    def downloads(self) -> tuple[()]:
        """None: everything is computed."""
        return ()

    def load(self, root: Path, split: str, progress_bar: bool) -> Dataset:
        """Read a split, or solve for it."""
        unit = float(self._pressures(root, "train", progress_bar).max())
        pressures = self._pressures(root, split, progress_bar)
        return Dataset((pressures / unit).astype(np.float32)[..., None], unit=unit)

    def _pressures(self, root: Path, split: str, progress_bar: bool) -> np.ndarray:
        num_fields = {"train": self.num_train, "test": self.num_test}[split]
        kind = {
            ThresholdPermeability: "threshold",
            LogNormalPermeability: f"lognormal-{getattr(self.permeability, 'log_std', 0)}",
        }[type(self.permeability)]
        path = root / self.folder / f"{kind}-{self.resolution}-{num_fields}-seed{self.seed}-{split}.npy"
        if path.exists():
            return _read_pressures(path, (num_fields, self.resolution, self.resolution))
        pressures = self._solve(split, num_fields, progress_bar)
        _write_pressures(path, pressures)
        return pressures

    def _solve(self, split: str, num_fields: int, progress_bar: bool) -> np.ndarray:
        from tqdm import trange

        pressures = np.empty((num_fields, self.resolution, self.resolution))
        for index in trange(num_fields, desc="Darcy flow", disable=not progress_bar):
            rng = np.random.default_rng((self.seed, self.splits.index(split), index))
            permeability = self.permeability(gaussian_fields(rng, 1, self.resolution)[0])
            pressures[index] = solve_darcy(permeability)
        return pressures


def gaussian_fields(rng: np.random.Generator, num_fields: int, resolution: int) -> np.ndarray:
    """Draw Gaussian random fields of covariance (-Laplace + 9)^-2 with zero Neumann conditions on the unit square.

    The Karhunen-Loeve expansion in cosines, of as many modes along each side as there are cells.

    Args:
        rng: NumPy generator.
        num_fields: how many.
        resolution: cells along each side.

    Returns:
        Values at the cells' centres, shape (num_fields, resolution, resolution).

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import gaussian_fields
        >>> gaussian_fields(np.random.default_rng(0), 3, 16).shape
        (3, 16, 16)
    """
    from scipy.fft import idctn

    coefficients = rng.standard_normal((num_fields, resolution, resolution)) * _standard_deviations(resolution)
    # The orthonormal inverse transform of type 2 sums cosines of norm 1 over the cells; ours have norm 1 over the square.
    return resolution * np.asarray(idctn(coefficients, axes=(1, 2), norm="ortho"))


def _standard_deviations(resolution: int) -> np.ndarray:
    modes = np.square(np.pi * np.arange(resolution))
    return 1 / (modes[:, None] + modes + _SHIFT)


def solve_darcy(permeability: np.ndarray, source: float | np.ndarray = 1.0) -> np.ndarray:
    """Solve -div(k grad u) = f on the unit square with u = 0 on the boundary, by finite volumes of second order.

    The flow between two cells takes the harmonic mean of their permeabilities, which is exact across layers; the boundary
    is half a cell from the outermost centres.

    Args:
        permeability: k > 0 at the cells' centres, shape (n, n).
        source: f there, or one number.

    Returns:
        u at the cells' centres, shape (n, n).

    Raises:
        ValueError: `permeability` is not square, or not finite and positive; `source` does not fit it.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import solve_darcy
        >>> pressure = solve_darcy(np.ones((16, 16)))
        >>> round(float(pressure.max()), 3)  # that of the continuous equation is 0.074
        0.073
    """
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import spsolve

    k = np.asarray(permeability, float)
    if k.ndim != 2 or k.shape[0] != k.shape[1] or not k.size:
        raise ValueError(f"`permeability` has shape {k.shape}: expected (n, n).")
    if not (np.isfinite(k).all() and (k > 0).all()):
        raise ValueError(f"`permeability` ranges from {k.min()} to {k.max()}: expected finite, positive numbers.")
    if np.shape(source) not in ((), k.shape):
        raise ValueError(f"`source` has shape {np.shape(source)}: expected a number, or {k.shape} as `permeability`.")
    n = len(k)
    # Conductances of faces: between centres, h apart, and from the outermost centres to the boundary, h / 2 away.
    vertical = 2 * k[:-1] * k[1:] / (k[:-1] + k[1:])
    horizontal = 2 * k[:, :-1] * k[:, 1:] / (k[:, :-1] + k[:, 1:])
    total = np.zeros_like(k)
    for face, axis in ((vertical, 0), (horizontal, 1)):
        edges = np.take(k, [0, -1], axis) * 2
        first, last = np.split(edges, 2, axis)
        total += np.concatenate([first, face], axis) + np.concatenate([face, last], axis)
    # Rows of the square one after another: a cell's right neighbour is the next unknown, except at the row's end.
    right = np.pad(horizontal, ((0, 0), (0, 1))).ravel()[:-1]
    below = vertical.ravel()
    offsets: Any = [0, 1, -1, n, -n]
    diagonals = [total.ravel(), -right, -right, -below, -below]
    matrix = diags_array(diagonals, offsets=offsets, shape=(n * n, n * n), format="csc")
    # Flows through a cell's faces, times h and over h, balance the source on its area h^2.
    return np.asarray(spsolve(matrix, np.broadcast_to(source, k.shape).ravel() / n**2)).reshape(n, n)


def _write_pressures(path: Path, pressures: np.ndarray) -> None:
    """Save fields for the next time; a folder that can't be written is a warning, not an error."""
    # A unique name: several processes may start on the same data.
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.save(file, pressures)
        os.replace(part, path)
    except OSError as error:
        _logger.warning("%s can't be written, so the fields will be computed again: %s", path, error)


def _read_pressures(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        pressures = np.load(path)
    except (ValueError, OSError, EOFError) as error:
        raise DataFileError(f"{path} is damaged: {error}. Delete it; it is computed again.") from error
    if pressures.shape != shape or not np.isfinite(pressures).all():
        raise DataFileError(
            f"{path} holds {pressures.shape}, or numbers that are not finite. Delete it; it is made again."
        )
    return pressures
