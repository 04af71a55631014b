"""From settings to values: model, strategy and optimiser of a run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array
from numpyro import handlers
from numpyro.distributions import biject_to

import kaem_ppl

from ..basis import Basis
from ..distributions.base import TiltedDistribution
from ..inference import (
    MALA,
    ULA,
    AdaptedLadder,
    CyclicPower,
    ImportanceMLE,
    LangevinMLE,
    PowerLadder,
    Strategy,
    ThermodynamicMLE,
    TrainingState,
    VariationalMLE,
    residual_resampling,
    stratified_resampling,
    systematic_resampling,
)
from ..inference.model.parameters import Params, read_parameters
from ..models import (
    ConvEncoder,
    ConvGenerator,
    Dataset,
    Encoder,
    GaussianModel,
    Generator,
    KANGenerator,
    LatentEBM,
    MixtureKAEM,
    MLPEncoder,
    MLPGenerator,
    ProductKAEM,
    SequenceGenerator,
    SequenceKAEM,
    sample_langevin_prior,
    to_unit_interval,
)
from ..primitives import kan_prior
from .config import Config
from .data import is_field
from .errors import CommandError
from .latent_ebm import LatentEBMMLE

_RESAMPLERS = {
    "residual": residual_resampling,
    "systematic": systematic_resampling,
    "stratified": stratified_resampling,
}


@dataclass(frozen=True)
class Standardized:
    """A generator whose inputs are brought to mean 0 and standard deviation 1.

    Attributes:
        generator: takes them.
        mean: of the inputs as they come.
        std: their standard deviation.
    """

    generator: Generator
    mean: float
    std: float

    def __call__(self, name: str) -> Callable[[Array], Array]:
        """Register the generator's parameters and return a function of inputs (..., in)."""
        generate = self.generator(name)
        return lambda x: generate((x - self.mean) / self.std)


@dataclass(frozen=True, eq=False)
class ImageModel:
    """A model of grey levels that is given images as they are stored: bytes, a quarter of the memory.

    Attributes:
        model: of grey levels in [0, 1].
        is_flat: whether it wants the pixels of an image one after another.
    """

    model: Callable
    is_flat: bool

    def __call__(self, x: Array | None = None, size: int | None = None) -> Array:
        """Condition on images (num_data, height, width, channels), or generate `size` of them."""
        if x is None:
            return self.model(size=size)
        levels = to_unit_interval(x)
        return self.model(levels.reshape(len(levels), -1) if self.is_flat else levels)


@dataclass(frozen=True, eq=False)
class AmortizedGuide:
    """q(z | x): normal by an encoder, mapped onto the support of the prior.

    Attributes:
        encoder: from grey levels to loc and scale of Q numbers.
        shape: of a datum's latent, Q numbers in all.
        support: of each of them.
    """

    encoder: Encoder
    shape: tuple[int, ...]
    support: dist.constraints.Constraint

    def __call__(self, x: Array) -> None:
        """Sample `z` for each datum."""
        loc, scale = (y.reshape(-1, *self.shape) for y in self.encoder("encoder")(to_unit_interval(x)))
        posterior = dist.TransformedDistribution(dist.Normal(loc, scale), biject_to(self.support))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", posterior.to_event(len(self.shape)))


def build_model(config: Config, dataset: Dataset) -> Callable:
    """The model of a run.

    Args:
        config: settings.
        dataset: whose shape and vocabulary it takes; any split.

    Raises:
        CommandError: settings do not fit each other or the data.
    """
    settings = config.model
    if dataset.vocabulary is not None:
        return _sequence_model(config, dataset)
    if settings.generator == "sequence":
        raise CommandError(f"generator is 'sequence', and {config.dataset} has no texts: expected kan, mlp or conv.")
    event_shape = dataset.values.shape[1:]
    output = None if is_field(config) else jax.nn.sigmoid
    generator = _generator(settings, event_shape, output)
    return ImageModel(_kaem_or_baseline(settings, generator), settings.generator != "conv")


def build_strategy(config: Config, model: Callable, dataset: Dataset) -> Strategy:
    """How the model is learnt."""
    settings = config.strategy
    if config.mode == "vanilla":
        return ImportanceMLE(settings.num_particles, settings.ess_threshold, _RESAMPLERS[settings.resampler])
    if config.mode == "variational":
        return VariationalMLE(_guide(config, dataset), settings.num_draws)
    kernel = (ULA if settings.kernel == "ula" else MALA)(settings.step_size)
    if config.mode == "langevin":
        langevin = LangevinMLE(kernel, settings.num_steps, settings.persistent)
        return LatentEBMMLE(model.model, langevin) if config.model.kind == "latent-ebm" else langevin
    num_temperatures = settings.num_temperatures
    ladder = {
        0: lambda: AdaptedLadder(num_temperatures),
        1: lambda: PowerLadder(num_temperatures, *settings.power),
        2: lambda: CyclicPower(num_temperatures, *settings.power, settings.power_period),
    }[len(settings.power)]()
    return ThermodynamicMLE(kernel, ladder, settings.num_steps, settings.objective, settings.persistent)


def build_optimizer(config: Config, num_data: int) -> optax.GradientTransformation:
    """Adam, with the schedule and the clipping of the settings."""
    settings = config.training
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, settings.num_epochs * -(-num_data // settings.batch_size))
    adam = optax.adam(rate)
    return adam if settings.clip_norm is None else optax.chain(optax.clip_by_global_norm(settings.clip_norm), adam)


def build_prior(config: Config, params: Params) -> TiltedDistribution | None:
    """The learnt prior of a KAEM; None for a baseline."""
    settings = config.model
    if settings.kind != "kaem":
        return None
    is_mixture = settings.layout == "mixture"
    with handlers.substitute(data=params):
        return kan_prior(
            "prior",
            (settings.num_latents,) if is_mixture else (settings.num_latents, settings.num_components),
            basis=_basis(settings),
            domain=settings.domain,
            reference=_reference(settings),
            num_components=settings.num_components if is_mixture else None,
        )


def model_params(model: Callable, dataset: Dataset, state: TrainingState) -> Params:
    """Constrained parameters of a model from a state of its training; a guide's are left out."""
    parameters = read_parameters(jax.random.key(0), model, {"x": jnp.asarray(dataset.values[:1])})
    learnt = {name: value for name, value in state.params.items() if name in parameters.values}
    return {**parameters.constrain(jax.tree.map(jnp.asarray, learnt)), **state.grids}


def generate(key: Array, model: Callable, params: Params, num_samples: int) -> Array:
    """Draw data from a model: the likelihood's means, or tokens where it has none.

    Args:
        key: PRNG key.
        model: of `build_model`.
        params: constrained parameters.
        num_samples: how many.

    Returns:
        Shape (num_samples, ...), as the model has them.
    """
    prior_key, model_key = jax.random.split(key)
    latents = {}
    inner = getattr(model, "model", model)
    if isinstance(inner, LatentEBM):
        latents["z"] = sample_langevin_prior(prior_key, inner, params, num_draws=num_samples)

    @jax.jit
    def draw(key, values):
        with handlers.trace() as sites, handlers.substitute(data=values), handlers.seed(rng_seed=key):
            model(size=num_samples)
        return (sites["mean"] if "mean" in sites else sites["x"])["value"]

    return draw(model_key, {**params, **latents})


def _kaem_or_baseline(settings, generator):
    if settings.kind == "vae":
        return GaussianModel(settings.num_latents, generator, settings.scale)
    if settings.kind == "latent-ebm":
        energy = MLPGenerator((settings.num_latents, *settings.energy_hidden, 1))
        return LatentEBM(settings.num_latents, energy, generator, settings.scale)
    return (ProductKAEM if settings.layout == "product" else MixtureKAEM)(
        (settings.num_latents, settings.num_components),
        generator,
        _basis(settings),
        settings.domain,
        _reference(settings),
        settings.scale,
    )


def _sequence_model(config, dataset):
    settings = config.model
    if settings.kind != "kaem" or settings.layout != "product" or settings.generator != "sequence":
        raise CommandError(
            f"{config.dataset} has texts: expected model kaem, layout product and generator sequence, got "
            f"{settings.kind}, {settings.layout} and {settings.generator}."
        )
    if config.mode == "variational":
        raise CommandError("mode is 'variational', and encoders are for images: expected vanilla, langevin or thermo.")
    if settings.width % settings.num_heads:
        raise CommandError(f"width is {settings.width}: expected a multiple of num_heads, {settings.num_heads}.")
    decoder = SequenceGenerator(
        settings.num_latents, dataset.values.shape[1], len(dataset.vocabulary), settings.width, settings.num_heads,
        settings.num_layers,
    )  # fmt: skip
    shape = (settings.num_latents, settings.num_components)
    generator = _standardized(settings, decoder)
    return SequenceKAEM(shape, generator, _basis(settings), settings.domain, _reference(settings))


def _generator(settings, event_shape, output):
    if settings.generator == "conv":
        network = ConvGenerator(settings.num_latents, event_shape, settings.hidden, output=output)
    else:
        network = (KANGenerator if settings.generator == "kan" else MLPGenerator)(
            (settings.num_latents, *settings.hidden, math.prod(event_shape)), output=output
        )
    return network if settings.kind != "kaem" else _standardized(settings, network)


def _standardized(settings, network):
    """Inputs of the generator are sums of P latents, or one of a mixture; what they are before anything is learnt."""
    num_terms = settings.num_components if settings.layout == "product" else 1
    reference = _reference(settings)
    return Standardized(network, num_terms * float(reference.mean), math.sqrt(num_terms * float(reference.variance)))


def _basis(settings) -> Basis:
    kind = getattr(kaem_ppl, settings.basis)
    first = {"Fourier": "num_frequencies", "Chebyshev": "degree"}.get(settings.basis, "num_grid")
    return kind(**{first: settings.num_basis})


def _reference(settings):
    low, high = settings.domain
    return {
        "uniform": lambda: dist.Uniform(low, high),
        "normal": lambda: dist.Normal(0.0, 1.0),
        "lognormal": lambda: dist.LogNormal(0.0, 1.0),
    }[settings.reference]()


def _guide(config, dataset):
    settings = config.model
    event_shape = dataset.values.shape[1:]
    is_product = settings.kind == "kaem" and settings.layout == "product"
    shape = (settings.num_latents, settings.num_components) if is_product else (settings.num_latents,)
    if settings.generator == "conv":
        encoder = ConvEncoder(event_shape, math.prod(shape), settings.encoder_hidden)
    else:
        encoder = MLPEncoder((math.prod(event_shape), *settings.encoder_hidden, math.prod(shape)))
    support = _reference(settings).support if settings.kind == "kaem" else dist.constraints.real
    return AmortizedGuide(encoder, shape, support)
