"""The settings of a run as dataclasses, one for each table of a settings file, with defaults, limits and help texts."""

from dataclasses import dataclass, field
from typing import Any

from ..errors import CommandError

BASES = ("RBF", "BSpline", "Fourier", "Chebyshev", "RSWAF", "Morlet")


def _setting(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field with its help text and its limits."""
    limits = {"choices": choices, "least": least, "above": above, "most": most, "below": below}
    return field(default=default, metadata={"help": text, **limits})


@dataclass(frozen=True)
class DataSettings:
    """Preprocessing of a data set; settings of other kinds of data are ignored."""

    num_train: int | None = _setting(None, "random subset of the training data; none takes all", least=1)
    num_test: int | None = _setting(None, "random subset of the test data; none takes all", least=1)
    size: int | None = _setting(None, "height and width to resize images to, or to solve fields at", least=1)
    grey: bool = _setting(False, "whether to convert colours to grey levels")
    stream: bool = _setting(False, "whether to read batches from a file instead of device memory")
    length: int = _setting(500, "tokens of a text; longer texts are cut", least=1)
    vocabulary_size: int = _setting(500, "number of different tokens", least=2)
    permeability: str = _setting("threshold", "of the porous medium of Darcy flow", choices=("threshold", "lognormal"))


@dataclass(frozen=True)
class ModelSettings:
    """Prior, generator and likelihood."""

    kind: str = _setting("kaem", "KAEM, or a baseline", choices=("kaem", "vae", "latent-ebm", "diffusion"))
    layout: str = _setting("product", "of a KAEM's latent", choices=("product", "mixture"))
    num_latents: int = _setting(81, "Q, inputs of the generator", least=1)
    num_components: int = _setting(40, "P, latents or mixture components of each input", least=1)
    basis: str = _setting("RBF", "of the prior's energies", choices=BASES)
    num_basis: int = _setting(20, "grid points, frequencies, or degree of the basis", least=1)
    domain: tuple[float, ...] = _setting((-1.2, 1.2), "interval where the energies are learnt")
    reference: str = _setting(
        "uniform", "distribution that the prior tilts: uniform on the domain, or the standard one",
        choices=("uniform", "normal", "lognormal"),
    )  # fmt: skip
    generator: str = _setting("kan", "network from latents to data", choices=("kan", "mlp", "conv", "sequence"))
    hidden: tuple[int, ...] = _setting((162,), "units of hidden layers, or channels of maps", least=1)
    width: int = _setting(512, "features of a position of a sequence", least=1)
    num_heads: int = _setting(8, "attention heads", least=1)
    num_layers: int = _setting(2, "attention blocks", least=1)
    scale: float = _setting(0.2, "standard deviation of data around the generator's output", above=0)
    learn_scale: str = _setting(
        "no", "whether the scale is learnt: one for all, or one for each channel", choices=("no", "one", "channels")
    )  # fmt: skip
    energy_hidden: tuple[int, ...] = _setting((200, 200), "hidden layers of a latent-ebm's energy", least=1)
    encoder_hidden: tuple[int, ...] = _setting((256, 256), "hidden layers of the encoder", least=1)
    num_denoising_steps: int = _setting(50, "steps from noise to a sample of a diffusion", least=1)


@dataclass(frozen=True)
class ImportanceSettings:
    """Importance sampling: `ImportanceMLE`."""

    num_particles: int = _setting(100, "prior draws of each step", least=1)
    ess_threshold: float = _setting(
        0.0, "resample where the effective sample size is below this fraction", least=0, most=1
    )
    resampler: str = _setting("residual", "resampling scheme", choices=("residual", "systematic", "stratified"))


@dataclass(frozen=True)
class LangevinSettings:
    """Markov chains: `LangevinMLE`."""

    kernel: str = _setting(
        "ula", "unadjusted or Metropolis-adjusted Langevin, or Hamiltonian", choices=("ula", "mala", "hmc")
    )
    step_size: float = _setting(0.01, "of ula; where the adaptation of mala and hmc starts", above=0)
    num_leapfrog_steps: int = _setting(5, "of a trajectory of hmc", least=1)
    num_steps: int = _setting(40, "Markov steps of each update of a datum", least=1)
    persistent: bool = _setting(False, "whether chains continue from update to update, or start from the prior")


@dataclass(frozen=True)
class ThermoSettings(LangevinSettings):
    """Tempered populations: `ThermodynamicMLE`."""

    num_temperatures: int = _setting(5, "replicas of each datum", least=2)
    power: tuple[float, ...] = _setting(
        (), "p of the ladder (k / N)^p; two numbers to cycle between; empty adapts the ladder", above=0
    )
    power_period: int = _setting(10, "epochs of one cycle of the power", least=1)
    objective: str = _setting(
        "fisher", "what is maximised", choices=("fisher", "thermodynamic", "steppingstone")
    )  # fmt: skip

    def __post_init__(self) -> None:
        if len(self.power) > 2 or sorted(self.power) != list(self.power):
            raise CommandError(f"power is {list(self.power)}: expected none, one, or two numbers in order.")


@dataclass(frozen=True)
class VariationalSettings:
    """An encoder: `VariationalMLE`."""

    num_draws: int = _setting(1, "draws of the encoder for each datum", least=1)


@dataclass(frozen=True)
class TrainingSettings:
    """Optimiser and checkpoints."""

    num_epochs: int = _setting(20, "passes through the data", least=1)
    batch_size: int = _setting(100, "data of each step", least=1)
    learning_rate: float = _setting(1e-3, "of Adam", above=0)
    schedule: str = _setting(
        "constant", "of the learning rate, down to 0; or up in the first twentieth, then down",
        choices=("constant", "linear", "cosine", "warmup-cosine"),
    )  # fmt: skip
    average: float | None = _setting(
        None,
        "decay of the moving average of parameters that is used after training; none uses the last",
        least=0,
        below=1,
    )
    clip_norm: float | None = _setting(None, "largest norm of a gradient; none does not clip", above=0)
    checkpoint_minutes: float = _setting(1.0, "from one checkpoint to the next, inside epochs too", least=0)
    sample_every: int | None = _setting(
        None, "epochs from one picture of samples to the next; none has no pictures", least=1
    )
    keep_checkpoints: int = _setting(3, "checkpoints kept in addition to the best", least=1)


type StrategySettings = ImportanceSettings | LangevinSettings | ThermoSettings | VariationalSettings

STRATEGIES: dict[str, type] = {
    "importance": ImportanceSettings,
    "langevin": LangevinSettings,
    "thermo": ThermoSettings,
    "variational": VariationalSettings,
}
# The name that the reference implementation gives to training by importance sampling.
MODE_ALIASES = {"vanilla": "importance"}
# By kind of model, the modes that can train it.
MODES_OF_KIND = {
    "kaem": tuple(STRATEGIES),
    "vae": ("variational",),
    "latent-ebm": ("langevin",),
    "diffusion": ("variational",),
}
TABLES: dict[str, type] = {"data": DataSettings, "model": ModelSettings, "training": TrainingSettings, **STRATEGIES}
