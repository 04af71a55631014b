"""What chains record, draw by draw: on the device, or in files where a checkpoint is kept."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ...model.power_posterior import Position, PowerPosterior
from .spool import Spool

if TYPE_CHECKING:
    from ..run import Run

# So many chunks are joined into one: a join of thousands takes seconds to compile.
_JOINED_AT_ONCE = 50


class _Thinned:
    """Keeps every so many steps, and counts.

    Attributes:
        num_draws: kept of each chain.
        num_steps_behind: steps since the last one that was kept.
    """

    def __init__(self, posterior: PowerPosterior, thinning: int) -> None:
        self.posterior, self.thinning = posterior, thinning
        self.num_draws = self.num_steps_behind = 0

    def _select(self, records: dict[str, Any], num_steps: int) -> dict[str, Any] | None:
        """Of the first steps of a chunk those that are kept; None where none is."""
        first = self.thinning - 1 - self.num_steps_behind
        kept = range(first, num_steps, self.thinning)
        self.num_steps_behind = (self.num_steps_behind + num_steps) % self.thinning
        self.num_draws += len(kept)
        length = len(jax.tree.leaves(records)[0])
        if len(kept) == length:
            return records
        return jax.tree.map(lambda x: x[first : num_steps : self.thinning], records) if len(kept) else None


class InMemory(_Thinned):
    """Draws on the device."""

    def __init__(self, posterior: PowerPosterior, thinning: int) -> None:
        super().__init__(posterior, thinning)
        self._levels: list[list[dict[str, Any]]] = []

    def append(self, records: dict[str, Any], num_steps: int) -> None:
        """Add the first steps of a chunk, arrays (steps, C, N, ...)."""
        kept = self._select(records, num_steps)
        if kept is None:
            return
        part, level = kept, 0
        while True:
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(part)
            if len(self._levels[level]) < _JOINED_AT_ONCE:
                return
            part, self._levels[level] = join_chunks(self._levels[level]), []
            level += 1

    def resume(self, saved: Any) -> None:
        """Nothing is saved of draws in memory."""

    def state(self) -> Any:
        """See `resume`."""
        return None

    def values(self) -> dict[str, Any]:
        """Values of the latent sites so far, (C, S, ...); without a plate there is no axis of data."""
        values = values_of(self.posterior, self._joined()["position"])
        return {name: np.asarray(x if self.posterior.plate else x[:, :, 0]) for name, x in values.items()}

    def close(self) -> tuple[Position, dict[str, Any] | None, dict[str, Any]]:
        """Positions, values of latent sites (None: not known yet) and statistics, arrays (C, S, N, ...)."""
        records = jax.block_until_ready(self._joined())
        return records.pop("position"), None, records

    def _joined(self) -> dict[str, Any]:
        return _by_chain(join_chunks([part for level in reversed(self._levels) for part in level]))


class OnDisk(_Thinned):
    """Draws in the files of a checkpoint."""

    def __init__(
        self, posterior: PowerPosterior, thinning: int, spool: Spool, dims: Mapping[str, Sequence[str]], stays: bool
    ) -> None:
        super().__init__(posterior, thinning)
        self._spool, self._stays = spool, stays
        self._dims = _file_dims(posterior, dims)

    def append(self, records: dict[str, Any], num_steps: int) -> None:
        """Add the first steps of a chunk, arrays (steps, C, N, ...)."""
        values = values_of(self.posterior, records["position"])
        stats = {name: x for name, x in records.items() if name != "position"}
        groups = {"positions": records["position"], "posterior": values, "sample_stats": stats}
        kept = self._select(jax.device_get(groups), num_steps)
        if kept is not None:
            # Copies, where parts of a chunk are kept: the rest is not to be held in memory.
            self._spool.append(jax.tree.map(np.array, kept))

    def resume(self, saved: Any) -> None:
        """Go on from what `state` returned."""
        self._spool = Spool(self._spool.checkpoint, saved["spool"])
        self.num_draws, self.num_steps_behind = self._spool.num_draws, int(saved["num_steps_behind"])

    def state(self) -> Any:
        """What is not yet in files, and which files count."""
        return {"spool": self._spool.state(), "num_steps_behind": self.num_steps_behind}

    def values(self) -> dict[str, Any]:
        """See `InMemory.values`; arrays that are read lazily."""
        found = self._spool.close(*self._dims)["posterior"]
        return found if self.posterior.plate else {name: x.without_data_axis() for name, x in found.items()}

    def close(self) -> tuple[Position, dict[str, Any] | None, dict[str, Any]]:
        """See `InMemory.close`; arrays that are read lazily, where draws stay in files."""
        found: Any = self._spool.close(*self._dims)
        if not self._stays:
            found = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), found)
        return found["positions"], found["posterior"], found["sample_stats"]


def in_memory_or_on_disk(run: "Run", posterior: PowerPosterior, dims: Mapping[str, Sequence[str]]) -> InMemory | OnDisk:
    """Where a run keeps its draws."""
    if run.checkpoint is None:
        return InMemory(posterior, run.thinning)
    return OnDisk(posterior, run.thinning, Spool(run.checkpoint), dims, run.spool)


def _file_dims(
    posterior: PowerPosterior, dims: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str | None]], list[str | None]]:
    """By variable of a file of draws the names of axes after chains and draws; and those of any other, the data's."""
    taken = {*(site.name for site in (*posterior.latents, *posterior.observed)), *dims}

    def rename(plate: str | None) -> str | None:
        # A dimension with the name of a variable would be taken for its coordinates.
        return f"{plate}_plate" if plate in taken else plate

    data = [] if posterior.plate is None else [rename(posterior.plate)]
    latents = {f"posterior/{site.name}": [*data, *map(rename, site.dims)] for site in posterior.latents}
    return latents | {f"sample_stats/{name}": [*data, *axes] for name, axes in dims.items()}, data


def join_chunks(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Chunks of records, (steps, C, N, ...), behind each other."""
    # Not under `jax.jit`, which takes seconds for hundreds of chunks.
    return chunks[0] if len(chunks) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *chunks)


@jax.jit
def _by_chain(records: dict[str, Any]) -> dict[str, Any]:
    """Records (steps, C, N, ...) as (C, S, N, ...)."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), records)


@jax.jit
def values_of(posterior: PowerPosterior, positions: Position) -> dict[str, Any]:
    """Values of the latent sites at positions (C, S, N, ...) or (S, C, N, ...)."""
    over_data = jax.vmap(posterior.values)
    over_draws = jax.vmap(over_data, in_axes=(None, 0))
    return jax.vmap(over_draws, in_axes=(None, 0))(posterior.rows, positions)
