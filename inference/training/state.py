"""What `fit` returns and raises: results, and the training state that a caller may save."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kaem_ppl.printing import describe_arrays, to_html

from ..model.parameters import Params
from .history import History


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
        params: constrained parameters by site name, as `numpyro.infer.Predictive(model, params=...)` takes them; states of
            modules, `mutable` sites, are among them.
        history: one row per epoch; `History` says what `loss` and `log_evidence` are for each strategy.
        guide_params: those of the strategy's guide; empty where it has none.
        state: the last training state, to resume from by `fit(..., state=...)`.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> result = fit(jax.random.key(1), model, x, num_epochs=3, progress_bar=False)
        >>> list(result.params), len(result.history["loss"]), int(result.state.epoch)
        (['loc'], 3, 3)
    """

    params: Params
    history: History
    guide_params: Params
    state: "TrainingState"

    def __repr__(self) -> str:
        last = {name: column[-1] for name, column in self.history.items() if len(column)}
        epochs = int(last.pop("epoch", 0))
        numbers = "".join(f", {name} {value:.5g}" for name, value in last.items())
        lines = [f"Trained for {epochs} epochs{numbers}", *describe_arrays(self.params)]
        if self.guide_params:
            lines += ["and of the guide", *describe_arrays(self.guide_params)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return to_html(repr(self))


class BestEvaluation(NamedTuple):
    """The best evaluation so far.

    Attributes:
        value: what `evaluate` returned; -inf before the first time.
        num_since: evaluations since then.
        params: unconstrained parameters.
        buffers: by site name.
    """

    value: jax.Array
    num_since: jax.Array
    params: Params
    buffers: Params


class TrainingState(NamedTuple):
    """The complete state of training between two steps: one pytree of arrays, from which `fit` resumes bit for bit.

    The order of the data in an epoch follows from `key` and `epoch`, so these and `step` determine the place in the data.

    Attributes:
        params: unconstrained values of the sites that are learnt, the guide's among them.
        buffers: values that no gradient changes: those of the sites `{name}$grid`, which `AdaptiveGrid` refits, and of
            `mutable` sites, such as running means, which each step updates.
        optimizer_state: as Optax keeps it.
        strategy_state: the strategy's state of each datum, arrays (num_data, ...).
        epoch: finished epochs, shape ().
        step: finished steps of the current epoch, shape (); 0 between epochs.
        totals: sums over these steps of the loss and of the strategy's metrics, by name.
        key: key data of the random stream, as `jax.random.key_data` gives it.
        best: the best evaluation; () without early stopping.
        last_good: unconstrained parameters and buffers at the last step whose loss was finite.
        is_finite: whether loss and parameters are finite, shape (). Once they are not, `params`, `step` and `totals` stay
            as they were at that step.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> first = fit(jax.random.key(1), model, x, num_epochs=3, progress_bar=False)
        >>> second = fit(jax.random.key(1), model, x, num_epochs=5, state=first.state, progress_bar=False)
        >>> whole = fit(jax.random.key(1), model, x, num_epochs=5, progress_bar=False)
        >>> bool(second.params["loc"] == whole.params["loc"])
        True
    """

    params: Params
    buffers: Params
    optimizer_state: Any
    strategy_state: Any
    epoch: jax.Array
    step: jax.Array
    totals: dict[str, jax.Array]
    key: jax.Array
    best: BestEvaluation | tuple[()]
    last_good: tuple[Params, Params]
    is_finite: jax.Array


class NonFiniteLossError(RuntimeError):
    """The loss, or the parameters after a step, stopped being finite.

    Attributes:
        epoch: the epoch that failed, counted from 1.
        step: the step of that epoch, counted from 1.
        sites: names of sites that are not finite at `broken_params`: parameters, or if these are finite, sample sites whose
            log-density is not at draws from the prior, given the data of that step. Empty where all are finite there.
        params: constrained parameters at the last step whose loss was finite; the initial ones if there was none.
        broken_params: constrained parameters at which the loss is not finite, or which are not finite themselves.
        history: the epochs before the one that failed.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit, NonFiniteLossError
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> try:
        ...     result = fit(jax.random.key(1), model, x, optimizer=optax.sgd(1e30), num_epochs=9, progress_bar=False)
        ... except NonFiniteLossError as error:
        ...     print(error.sites)
        ('x',)
    """

    def __init__(
        self,
        message: str,
        epoch: int,
        step: int,
        sites: tuple[str, ...],
        params: Params,
        broken_params: Params,
        history: History,
    ) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.sites = sites
        self.params = params
        self.broken_params = broken_params
        self.history = history


def check_state(state: TrainingState, expected: TrainingState) -> TrainingState:
    """Return a state to resume from, after a check that it belongs to this training.

    Args:
        state: what the user gave.
        expected: a fresh state of this training.

    Raises:
        ValueError: structure or shapes differ.
    """
    if jax.tree.structure(state) != jax.tree.structure(expected):
        raise ValueError(
            "`state` is not a state of this training: its structure differs: give the model, data, strategy, optimiser and "
            "`patience` that it came from."
        )
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(expected), strict=True):
        if jnp.shape(leaf) != jnp.shape(wanted):
            name = jax.tree_util.keystr(path)
            raise ValueError(f"`state{name}` has shape {jnp.shape(leaf)}, but this training has {jnp.shape(wanted)}.")
    return state


def copy_for_donation(state: TrainingState) -> TrainingState:
    """A copy whose buffers can be donated: neither the caller's arrays nor one array in two places.

    A weak type, which Python's own numbers have, would become a strong one after an epoch and compile everything again.
    """
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True), state)


def key_for(state: TrainingState, purpose: str) -> jax.Array:
    """A key for what is done after an epoch, "evaluation" or "grids"; independent of the keys of the epoch's steps."""
    number = {"evaluation": 1, "grids": 2}[purpose]
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.epoch)
    return jax.random.fold_in(jax.random.fold_in(key, 0), number)


@jax.jit
def update_best(state: TrainingState, params: Params, value: jax.Array | float) -> TrainingState:
    """Compare an evaluation at these parameters, unconstrained, with the best one so far."""
    best = state.best
    assert isinstance(best, BestEvaluation)
    is_better = value > best.value
    value, num_since = jnp.where(is_better, value, best.value), jnp.where(is_better, 0, best.num_since + 1)
    params, buffers = select(is_better, (params, state.buffers), (best.params, best.buffers))
    return state._replace(best=BestEvaluation(value, num_since, params, buffers))


def all_finite(tree: Any) -> jax.Array:
    """Whether every number of every leaf is finite, shape ()."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def select(condition: jax.Array, when_true: Any, when_false: Any) -> Any:
    """`jnp.where`, leaf by leaf."""
    return jax.tree.map(partial(jnp.where, condition), when_true, when_false)
