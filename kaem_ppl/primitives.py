"""NumPyro primitives: priors and generators whose parameters a model registers as it runs."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, biject_to
from numpyro.util import not_jax_tracer

from .arguments import as_array, as_count, as_shape, check_callable, check_kind
from .basis import RBF, Basis
from .distributions import KANTilted, KANTiltedMixture
from .distributions.selection import select
from .network import KANetwork, check_sizes
from .univariate import UnivariateKAN, uniform_grid

# What the name of a prior's grid site adds to the prior's own: training looks these sites up by it.
GRID_SUFFIX = "$grid"


def kan_prior(
    name: str,
    shape: int | tuple[int, ...],
    *,
    basis: Basis,
    domain: tuple[float, float],
    reference: Distribution,
    num_components: int | None = None,
    activation: Callable[[Array], Array] = jax.nn.silu,
    adaptive_grid: bool = False,
    context: ArrayLike | None = None,
    num_contexts: int | None = None,
) -> KANTilted | KANTiltedMixture:
    """Declare a learnt prior inside a model; it starts close to its reference.

    With `context`, such as the label of each datum, every one of `num_contexts` classes has a prior of its own: parameters
    have a first axis of classes, and integrals are those of the classes, however many data there are.

    Registers the site `{name}$params`, a dictionary with the entries `coef`, `base_weight` and `spline_weight` of a
    `UnivariateKAN`; with `num_components` also `logits`; and where `basis.trainable_width`, `unconstrained_width`, one
    number that `biject_to(basis.width_constraint)` maps to the width. Grid and domain are constants, unless
    `adaptive_grid`: then a second site `{name}$grid`, a dictionary of `grid`, shape bank + (G,), and `domain`, shape
    bank + (2,), holds those of each function, the bank being `shape` and with `num_components` one axis more. No gradient
    is meant for it: it is for training to refit.

    Args:
        name: prefix of the parameter's name.
        shape: batch shape of the prior, one density for each latent; an int is a shape of one axis.
        basis: the family of the energies, for example `RBF(20)`.
        domain: (a, b), where the energies are learnt.
        reference: the univariate distribution that is tilted; its own parameters may be learnt too.
        num_components: K, for a mixture of K tilted densities for each latent.
        activation: the energies' base function.
        adaptive_grid: whether grid and domain are a site of the model.
        context: class of each datum, integers from 0 to num_contexts - 1, any shape.
        num_contexts: C, the number of classes; needed with `context`.

    Returns:
        A distribution of batch shape `shape` broadcast with the reference's; with `context` of batch shape
        context.shape + shape.

    Raises:
        RuntimeError: where nothing is substituted for the parameters and there is no `numpyro.handlers.seed`.
        TypeError: where an argument is of the wrong kind.
        ValueError: where an argument can't be used, or the substituted parameters have another structure or shape.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, kaem_ppl as kp
        >>> def model():
        ...     prior = kp.kan_prior("prior", (8,), basis=kp.RBF(20), domain=(-3, 3), reference=dist.Normal(0, 1))
        ...     return numpyro.sample("z", prior.to_event(1))
        >>> numpyro.handlers.seed(model, jax.random.key(0))().shape
        (8,)
    """
    _check_name(name)
    check_kind(basis, Basis, "basis", "a basis such as `RBF(20)`")
    check_callable(activation, "activation", "an elementwise function such as `jax.nn.silu`")
    if num_components is not None:
        num_components = as_count(num_components, "num_components", 1)
    shape = as_shape(shape)
    if context is not None:
        context, num_contexts = _check_context(context, num_contexts, reference, shape)
        shape = (num_contexts, *shape)
    elif num_contexts is not None:
        raise ValueError(f"`num_contexts` goes with `context`, got {num_contexts} without it.")
    bank_shape = shape if num_components is None else (*shape, num_components)

    def init(key: Array) -> dict[str, Array]:
        values = learnt_parameters(
            UnivariateKAN.init(key, bank_shape, basis=basis, domain=domain, activation=activation)
        )
        if num_components is not None:
            values["logits"] = jnp.zeros(bank_shape)
        return values

    values = dict(register_parameters(name, init))
    logits = values.pop("logits", None)
    if adaptive_grid:
        values |= _register_grid(name, bank_shape, basis, domain)
    energy = _bank(values, basis, domain, activation)
    prior = KANTilted(energy, reference) if logits is None else KANTiltedMixture(logits, energy, reference)
    return prior if context is None else select(prior, context)


def kan_generator(
    name: str,
    sizes: Sequence[int],
    *,
    basis: Basis = RBF(10),  # noqa: B008 - a frozen value
    domain: tuple[float, float] = (-3.0, 3.0),
    activation: Callable[[Array], Array] = jax.nn.silu,
    output: Callable[[Array], Array] | None = None,
) -> KANetwork:
    """Declare a Kolmogorov-Arnold network inside a model.

    Registers the site `{name}$params`, a dictionary with one entry `layer_0`, `layer_1`, ... per layer, each with the
    entries that `kan_prior` lists; see `KANetwork.init` for how they start.

    Args:
        name: prefix of the parameter's name.
        sizes: numbers of inputs, hidden sums, and outputs.
        basis: the family of every function.
        domain: (a, b), where every function is learnt; it should hold most of the inputs. Sums of P latents of variance
            1 spread over sqrt(P) times what one does.
        activation: the functions' base function.
        output: elementwise function of the outputs, such as `jax.nn.sigmoid` for images in [0, 1].

    Returns:
        A function from inputs (..., sizes[0]) to outputs (..., sizes[-1]): a `KANetwork`, of which
        `symbolify_functions` finds formulae.

    Raises:
        RuntimeError: where nothing is substituted for the parameters and there is no `numpyro.handlers.seed`.
        TypeError: where an argument is of the wrong kind.
        ValueError: where an argument can't be used, or the substituted parameters have another structure or shape.

    Example:
        >>> import jax.numpy as jnp, numpyro, kaem_ppl as kp
        >>> with numpyro.handlers.seed(rng_seed=0):
        ...     decode = kp.kan_generator("decoder", (2, 5, 4))
        >>> decode(jnp.zeros((10, 2))).shape
        (10, 4)
    """
    _check_name(name)
    sizes = check_sizes(sizes)
    check_kind(basis, Basis, "basis", "a basis such as `RBF(20)`")
    check_callable(activation, "activation", "an elementwise function such as `jax.nn.silu`")
    if output is not None:
        check_callable(output, "output", "an elementwise function such as `jax.nn.sigmoid`, or None")

    def init(key: Array) -> dict[str, dict[str, Array]]:
        network = KANetwork.init(key, sizes, basis=basis, domain=domain, activation=activation)
        return {f"layer_{index}": learnt_parameters(layer) for index, layer in enumerate(network.layers)}

    values = register_parameters(name, init)
    layers = [_bank(values[f"layer_{index}"], basis, domain, activation) for index in range(len(sizes) - 1)]
    return KANetwork(tuple(layers), output)


def register_parameters(name: str, init: Callable[[Array], Any]) -> Any:
    """The value of the site `{name}$params`: what a handler substitutes, or else `init` of a fresh key.

    Args:
        name: prefix of the site's name.
        init: maps a JAX random key to a pytree of arrays.

    Returns:
        The pytree.

    Raises:
        RuntimeError: where nothing is substituted and there is no `numpyro.handlers.seed`.
        ValueError: where what is substituted has another structure or other shapes than `init` gives.
    """
    site = f"{name}$params"
    values = numpyro.param(site)
    if values is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPyro warns where the error below says more.
            key = numpyro.prng_key()
        if key is None:
            raise RuntimeError(
                f"Parameter {site!r} needs a random key to start from: wrap the model with "
                "numpyro.handlers.seed(model, key), or substitute learnt parameters with numpyro.handlers.substitute."
            )
        return _declare(site, init(key))
    _check_like(site, values, jax.eval_shape(init, jax.random.key(0)))
    return values


def _check_context(context: Any, num_contexts: Any, reference: Any, shape: tuple[int, ...]) -> tuple[Array, int]:
    """Classes as integers, and their number."""
    number = as_count(num_contexts, "num_contexts", 1)
    array = as_array(context, "context")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"`context` must hold integers, the classes, got type {array.dtype}.")
    if not_jax_tracer(array) and array.size:
        # By NumPy, also inside a traced function.
        known = np.asarray(array)
        if known.min() < 0 or known.max() >= number:
            raise ValueError(
                f"`context` must lie between 0 and num_contexts - 1 = {number - 1}, got {known.min()} to {known.max()}."
            )
    if isinstance(reference, Distribution) and len(reference.batch_shape) > len(shape):
        raise ValueError(
            f"`reference` must have a batch shape that broadcasts to {shape} beside `context`, got {reference.batch_shape}."
        )
    return array, number


def _check_name(name: str) -> None:
    check_kind(name, str, "name", "a string, the first part of the names of parameters")


def _declare(site: str, initial: Any) -> Any:
    """`numpyro.param`, which takes trees of arrays too, where its annotations know arrays."""
    return numpyro.param(site, initial)


def _register_grid(
    name: str, bank_shape: tuple[int, ...], basis: Basis, domain: tuple[float, float]
) -> dict[str, Array]:
    """Grid and domain of each function, the value of the site `{name}$grid`."""
    with jax.ensure_compile_time_eval():
        shared = uniform_grid(basis, domain)
        initial = {name: jnp.broadcast_to(shared[name], bank_shape + shared[name].shape) for name in ("grid", "domain")}
    site = name + GRID_SUFFIX
    values = _declare(site, initial)
    _check_like(site, values, initial)
    return dict(values)


def _check_like(site: str, values: Any, expected: Any) -> None:
    shapes, wanted = (
        {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (values, expected)
    )
    if shapes.keys() == {""} and len(wanted) > 1:
        raise ValueError(
            f"Parameter {site!r} holds one array: expected a dictionary with the entries {sorted(wanted)}. "
            "numpyro.handlers.lift can't draw one: draw the entries by numpyro.sample, and declare this inside "
            f"numpyro.handlers.substitute(data={{{site!r}: entries}})."
        )
    if shapes.keys() != wanted.keys():
        raise ValueError(f"Parameter {site!r} has the entries {sorted(shapes)}: expected {sorted(wanted)}.")
    for path, shape in shapes.items():
        if shape != wanted[path]:
            raise ValueError(f"Parameter {site!r} has shape {shape} at {path}: expected {wanted[path]}.")


def learnt_parameters(bank: UnivariateKAN) -> dict[str, Array]:
    """The parameters among the arrays of a bank."""
    values = {"coef": bank.coef, "base_weight": bank.base_weight, "spline_weight": bank.spline_weight}
    if bank.basis.trainable_width:
        values["unconstrained_width"] = biject_to(bank.basis.width_constraint).inv(bank.width)
    return values


def _bank(
    values: Mapping[str, Array], basis: Basis, domain: tuple[float, float], activation: Callable[[Array], Array]
) -> UnivariateKAN:
    """The bank with these parameters.

    Nothing known is computed as part of a trace, so that a prior with fixed parameters stays known inside a traced
    model and integrates its normaliser once.
    """
    arrays = dict(values)
    with jax.ensure_compile_time_eval():
        constants = uniform_grid(basis, domain)
    unconstrained_width = arrays.pop("unconstrained_width", None)
    if unconstrained_width is not None:
        to_width = biject_to(basis.width_constraint)
        if not_jax_tracer(unconstrained_width):
            with jax.ensure_compile_time_eval():
                arrays["width"] = to_width(unconstrained_width)
        else:
            arrays["width"] = to_width(unconstrained_width)
    return UnivariateKAN(basis=basis, activation=activation, **constants | arrays)
