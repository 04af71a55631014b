"""Build the model, strategy and optimiser of a run from its settings."""

import math
from collections.abc import Callable
from typing import Any, cast

import jax
import numpyro.distributions as dist
import optax
from jax import Array
from numpyro import handlers

import kaem_ppl

from ...basis import Basis
from ...distributions.base import TiltedDistribution
from ...inference import (
    HMC,
    MALA,
    ULA,
    AdaptedLadder,
    ContrastiveMLE,
    CyclicPower,
    ImportanceMLE,
    Kernel,
    Ladder,
    LangevinMLE,
    PowerLadder,
    Strategy,
    ThermodynamicMLE,
    VariationalMLE,
    residual_resampling,
    stratified_resampling,
    systematic_resampling,
)
from ...inference.model.parameters import Params
from ...models import (
    AmortizedGuide,
    ConvDenoiser,
    ConvEncoder,
    ConvGenerator,
    Dataset,
    Diffusion,
    GaussianModel,
    Generator,
    ImageModel,
    KANGenerator,
    LatentEBM,
    LearntScale,
    MixtureKAEM,
    MLPDenoiser,
    MLPEncoder,
    MLPGenerator,
    ProductKAEM,
    SequenceGenerator,
    SequenceKAEM,
    Standardized,
    sample_langevin_prior,
)
from ...primitives import kan_prior
from ..errors import CommandError
from ..settings.config import Config
from ..settings.tables import ImportanceSettings, LangevinSettings, ModelSettings, ThermoSettings, VariationalSettings
from .data import is_field

_RESAMPLERS = {
    "residual": residual_resampling,
    "systematic": systematic_resampling,
    "stratified": stratified_resampling,
}


def build_model(config: Config, dataset: Dataset) -> Callable:
    """The model of a run.

    Args:
        config: settings.
        dataset: any split; its shape and vocabulary are those of the model.

    Raises:
        CommandError: settings do not fit each other or the data.
    """
    settings = config.model
    if dataset.vocabulary is not None:
        return _build_sequence_model(config, dataset)
    if settings.generator == "sequence":
        raise CommandError(f"generator is 'sequence', and {config.dataset} has no texts: expected kan, mlp or conv.")
    event_shape = dataset.values.shape[1:]
    output = None if is_field(config) else jax.nn.sigmoid
    if settings.kind == "diffusion":
        return ImageModel(_build_diffusion(config, event_shape), settings.generator != "conv")
    generator = _build_generator(settings, event_shape, output)
    return ImageModel(
        _build_model(settings, generator, _build_scale(settings, event_shape)), settings.generator != "conv"
    )


def build_strategy(config: Config, model: Callable, dataset: Dataset) -> Strategy:
    """The training strategy."""
    settings = config.strategy
    match settings:
        case ImportanceSettings():
            return ImportanceMLE(settings.num_particles, settings.ess_threshold, _RESAMPLERS[settings.resampler])
        case VariationalSettings() if config.model.kind == "diffusion":
            # Its guide draws times and noise from their priors; the model takes flat images or not, the guide counts rows.
            return VariationalMLE(model.model.guide, settings.num_draws)
        case VariationalSettings():
            return VariationalMLE(_build_guide(config, dataset), settings.num_draws)
        case ThermoSettings():
            kernel, initial_step_size = _build_kernel(settings)
            return ThermodynamicMLE(
                kernel, _build_ladder(settings), settings.num_steps, cast(Any, settings.objective), settings.persistent,
                initial_step_size,
            )  # fmt: skip
    kernel, initial_step_size = _build_kernel(settings)
    langevin = LangevinMLE(kernel, settings.num_steps, settings.persistent, initial_step_size)
    return _contrastive(model.model, langevin) if config.model.kind == "latent-ebm" else langevin


def _build_kernel(settings: LangevinSettings) -> tuple[Kernel, float | None]:
    """The kernel, and where the adaptation of its step size starts."""
    match settings.kernel:
        case "ula":
            return ULA(settings.step_size), None
        case "hmc":
            return HMC(num_integration_steps=settings.num_leapfrog_steps), settings.step_size
    return MALA(), settings.step_size


def _build_ladder(settings: ThermoSettings) -> Ladder | CyclicPower:
    match settings.power:
        case ():
            return AdaptedLadder(settings.num_temperatures)
        case (power,):
            return PowerLadder(settings.num_temperatures, power)
        case (low, high):
            return CyclicPower(settings.num_temperatures, low, high, settings.power_period)
    raise AssertionError(settings.power)


def build_optimizer(config: Config, num_data: int) -> optax.GradientTransformation:
    """Adam, with the learning-rate schedule and gradient clipping of the settings."""
    settings = config.training
    rate, num_steps = settings.learning_rate, settings.num_epochs * -(-num_data // settings.batch_size)
    match settings.schedule:
        case "linear":
            rate = optax.linear_schedule(rate, 0.0, num_steps)
        case "cosine":
            rate = optax.cosine_decay_schedule(rate, num_steps)
        case "warmup-cosine":
            rate = optax.warmup_cosine_decay_schedule(0.0, rate, max(1, num_steps // 20), num_steps)
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
            basis=build_basis(settings),
            domain=_domain(settings),
            reference=build_reference(settings),
            num_components=settings.num_components if is_mixture else None,
        )


def _contrastive(ebm: LatentEBM, posterior: LangevinMLE) -> ContrastiveMLE:
    def sample_prior(key: Array, params: Params, num_draws: int) -> Array:
        return sample_langevin_prior(key, ebm, params, num_draws=num_draws)

    return ContrastiveMLE(ebm.log_prior, sample_prior, posterior)


def _build_scale(settings: ModelSettings, event_shape: tuple[int, ...]) -> float | LearntScale:
    """The noise scale. Of grey images, and of flat ones, there is one channel."""
    if settings.learn_scale == "no":
        return settings.scale
    shape = event_shape[-1:] if settings.learn_scale == "channels" and event_shape[-1] > 1 else ()
    if shape and settings.generator != "conv":
        raise CommandError("--learn-scale channels needs --generator conv: others have one channel of all colours.")
    return LearntScale(settings.scale, shape)


def _build_model(settings: ModelSettings, generator: Generator, scale: float | LearntScale) -> Callable:
    """A KAEM or a baseline."""
    if settings.kind == "vae":
        return GaussianModel(settings.num_latents, generator, scale)
    if settings.kind == "latent-ebm":
        energy = MLPGenerator((settings.num_latents, *settings.energy_hidden, 1))
        return LatentEBM(settings.num_latents, energy, generator, scale)
    return (ProductKAEM if settings.layout == "product" else MixtureKAEM)(
        (settings.num_latents, settings.num_components),
        generator,
        build_basis(settings),
        _domain(settings),
        build_reference(settings),
        scale,
    )


def _build_diffusion(config: Config, event_shape: tuple[int, ...]) -> Diffusion:
    """Hidden layers as those of the generator; maps of images in the opposite order, from full size to the smallest."""
    settings = config.model
    # Fields have a unit of their own.
    scale = {"loc": 0.0, "std": 1.0} if is_field(config) else {"loc": 0.5, "std": 0.5}
    if settings.generator == "conv":
        denoiser, shape = ConvDenoiser(_image_shape(event_shape), settings.hidden[::-1]), event_shape
    elif settings.generator == "mlp":
        denoiser, shape = MLPDenoiser((math.prod(event_shape), *settings.hidden, math.prod(event_shape))), None
    else:
        raise CommandError(
            f"generator is {settings.generator!r}, and a diffusion has none of it: expected mlp or conv."
        )
    return Diffusion(denoiser, shape or (math.prod(event_shape),), num_steps=settings.num_denoising_steps, **scale)


def _build_sequence_model(config: Config, dataset: Dataset) -> SequenceKAEM:
    settings, vocabulary = config.model, dataset.vocabulary
    assert vocabulary is not None
    if settings.kind != "kaem" or settings.layout != "product" or settings.generator != "sequence":
        raise CommandError(
            f"{config.dataset} has texts: expected model kaem, layout product and generator sequence, got "
            f"{settings.kind}, {settings.layout} and {settings.generator}."
        )
    if config.mode == "variational":
        raise CommandError(
            "mode is 'variational', and encoders are for images: expected importance, langevin or thermo."
        )
    if settings.width % settings.num_heads:
        raise CommandError(f"width is {settings.width}: expected a multiple of num_heads, {settings.num_heads}.")
    decoder = SequenceGenerator(
        settings.num_latents, dataset.values.shape[1], len(vocabulary), settings.width, settings.num_heads,
        settings.num_layers,
    )  # fmt: skip
    shape = (settings.num_latents, settings.num_components)
    generator = _standardized(settings, decoder)
    return SequenceKAEM(shape, generator, build_basis(settings), _domain(settings), build_reference(settings))


def _build_generator(
    settings: ModelSettings, event_shape: tuple[int, ...], output: Callable[[Array], Array] | None
) -> Generator:
    if settings.generator == "conv":
        network = ConvGenerator(settings.num_latents, _image_shape(event_shape), settings.hidden, output=output)
    else:
        network = (KANGenerator if settings.generator == "kan" else MLPGenerator)(
            (settings.num_latents, *settings.hidden, math.prod(event_shape)), output=output
        )
    return network if settings.kind != "kaem" else _standardized(settings, network)


def _standardized(settings: ModelSettings, network: Generator) -> Generator:
    """Standardise inputs, sums of P latents or one of a mixture, by their moments before training."""
    num_terms = settings.num_components if settings.layout == "product" else 1
    reference = build_reference(settings)
    return Standardized(network, num_terms * float(reference.mean), math.sqrt(num_terms * float(reference.variance)))


def build_basis(settings: ModelSettings) -> Basis:
    """The basis of the prior's energies.

    Raises:
        CommandError: it does not exist in this size.
    """
    kind = getattr(kaem_ppl, settings.basis)
    first = {"Fourier": "num_frequencies", "Chebyshev": "degree"}.get(settings.basis, "num_grid")
    try:
        return kind(**{first: settings.num_basis})
    except ValueError as error:
        # The library calls it by another name.
        expected = str(error).removeprefix(f"{first}={settings.num_basis} for {settings.basis}: ")
        raise CommandError(f"--num-basis is {settings.num_basis} for {settings.basis}: {expected}") from error


def build_reference(settings: ModelSettings) -> dist.Distribution:
    """The distribution that the prior tilts."""
    low, high = _domain(settings)
    return {
        "uniform": lambda: dist.Uniform(low, high),
        "normal": lambda: dist.Normal(0.0, 1.0),
        "lognormal": lambda: dist.LogNormal(0.0, 1.0),
    }[settings.reference]()


def _image_shape(event_shape: tuple[int, ...]) -> tuple[int, int, int]:
    height, width, num_channels = event_shape
    return height, width, num_channels


def _domain(settings: ModelSettings) -> tuple[float, float]:
    low, high = settings.domain
    return low, high


def _build_guide(config: Config, dataset: Dataset) -> AmortizedGuide:
    settings = config.model
    event_shape = dataset.values.shape[1:]
    is_product = settings.kind == "kaem" and settings.layout == "product"
    shape = (settings.num_latents, settings.num_components) if is_product else (settings.num_latents,)
    if settings.generator == "conv":
        encoder = ConvEncoder(_image_shape(event_shape), math.prod(shape), settings.encoder_hidden)
    else:
        encoder = MLPEncoder((math.prod(event_shape), *settings.encoder_hidden, math.prod(shape)))
    support = cast(Any, build_reference(settings)).support if settings.kind == "kaem" else dist.constraints.real
    return AmortizedGuide(encoder, shape, support)
