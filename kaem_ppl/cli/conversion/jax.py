"""Settings files of the JAX program (YAML, composed as by Hydra): what each key becomes here."""

from pathlib import Path
from typing import Any

from ..errors import CommandError
from .old_settings import OldSettings

_DATASETS = {
    "cifar10": "CIFAR10", "svhn_cropped": "SVHN", "celeb_a": "CELEBA", "mnist": "MNIST", "fashion_mnist": "FASHION_MNIST",
}  # fmt: skip
_BASES = {"rbf": "RBF", "spline": "BSpline", "chebyshev": "Chebyshev", "fourier": "Fourier"}
_SIZES = {"rbf": "D", "spline": "G", "chebyshev": "D", "fourier": "D"}
_GRIDS = "grids stay where they are; in Python, `fit(grids=AdaptiveGrid())` refits them"
_BASIS = "the command line takes the basis's own"
_LEAK = "leaky ReLU of slope 0.01"
_ADAM = "Adam's own values"
_SCHEDULE = "the learning rate stays; `schedule` may be linear, cosine or warmup-cosine"
_CHAIN = "the chain that samples the prior has its own settings; a KAEM's prior is sampled exactly"
_METRICS = "`kaem evaluate --distance` has values of its own"
_OPTIM = ("lr_end", "lr_decay", "beta1", "beta2", "begin", "step")
# Every key: None where it is read, else why there is no such setting.
KNOWN: dict[str, str | None] = {
    **dict.fromkeys(
        (
            "model.seed", "model.z_dim", "model.base", "model.ebm.layer_widths", "model.ebm.p0_stddev",
            "model.ebm.optim.lr_init", "model.gen.gaussian_stddev", "model.gen.blocks", "model.gen.img_channels",
            "model.gen.image_res", "model.gen.mcmc.stepsize", "model.gen.mcmc.numsteps", "model.gen.optim.lr_init",
            "model.kaem.mixture", "model.kaem.kan.basis", "model.thermo.num_temps", "training.dataset",
            "training.epochs", "training.global_batch_size", "training.image_res", "logging.sample_every",
        )
    ),
    **{f"model.kaem.kan.{basis}.{size}": None for basis, size in _SIZES.items()},
    **{f"model.kaem.kan.{basis}.grid_range": None for basis in ("rbf", "spline")},
    "model.kaem.kan.spline.k": None,
    **{
        f"model.kaem.kan.{basis}.{key}": _BASIS
        for basis in _BASES
        for key in ("kernel", "grid_e", "residual", "add_bias", "flavor", "smooth_init")
    },
    **dict.fromkeys(
        (f"model.kaem.kan.grid_updating.{x}" for x in ("numgrid", "update_frequency", "frequency_decay")), _GRIDS
    ),
    **dict.fromkeys(("model.kaem.numgrid", "model.kaem.update_grid_frequency"), _GRIDS),
    "model.kaem.numquad": "panels of 15 nodes each are refined until the measured error is small",
    "model.ebm.leakyrelu_leak": _LEAK,
    "model.gen.leakyrelu_leak": _LEAK,
    "model.gen.batchnorm": "generators of images have no normalisation layers",
    "model.gen.groupnorm": "generators of images have no normalisation layers",
    **dict.fromkeys(("model.ebm.mcmc.stepsize", "model.ebm.mcmc.numsteps"), _CHAIN),
    **{
        f"model.{network}.optim.{key}": _ADAM if key.startswith("beta") else _SCHEDULE
        for network in ("ebm", "gen")
        for key in _OPTIM
    },
    "model.thermo.xchange_every": "replicas are exchanged after every step",
    **dict.fromkeys((f"lr_schedule.{x}" for x in ("epoch_begin", "epoch_step", "begin", "step")), _SCHEDULE),
    "run_name": "a run's folder is --run-dir",
    "logging.logdir": "a run's folder is --run-dir",
    "logging.ckpt_dir": "a run's folder is --run-dir",
    "logging.ckpt_every": "checkpoints come by the clock: `checkpoint_minutes`",
    "logging.num_samples": "`kaem sample --num-samples`",
    **dict.fromkeys(
        (f"unbiased_metrics.{x}" for x in ("batch_size_to_generate", "num_samples", "regression_steps")), _METRICS
    ),
}  # fmt: skip


def read_yaml(file: Path, text: str) -> OldSettings:
    """The keys of a YAML file. Its `defaults` are read from the folders beside it, as Hydra does.

    Raises:
        CommandError: it is not YAML, has a key that the program does not, or names a file that is not there.
    """
    tree = _compose(file, _parse(file, text))
    training = tree.get("training")
    if isinstance(training, dict):
        _merge(tree.setdefault("model", {}), training.pop("model_overrides", None) or {})
    values: dict[str, Any] = {}
    _flatten(tree, "", values)
    old = OldSettings(file, values, str)
    old.check_known(KNOWN)
    return old


def _parse(file: Path, text: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CommandError(f"{file} is not YAML: {error}.") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CommandError(f"{file} is not a table of settings: expected keys such as model and training.")
    return content


def _compose(file: Path, own: dict[str, Any]) -> dict[str, Any]:
    defaults = own.pop("defaults", None) or []
    whole: dict[str, Any] = {}
    for entry in [*defaults, *([] if "_self_" in defaults else ["_self_"])]:
        if entry == "_self_":
            _merge(whole, own)
            continue
        if not isinstance(entry, dict) or len(entry) != 1:
            raise CommandError(f"{file} has {entry!r} among its defaults: expected a group and a name, or _self_.")
        ((group, name),) = entry.items()
        part = file.parent / str(group) / f"{name}.yaml"
        try:
            text = part.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise CommandError(f"{part}, a default of {file}, can't be read: give the composed file.") from None
        _merge(whole, {group: _parse(part, text)})
    return whole


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _flatten(tree: dict[str, Any], prefix: str, into: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", into)
        else:
            into[f"{prefix}{key}"] = value


def convert(old: OldSettings, dataset: str | None, mode: str | None) -> tuple[str, str, dict[str, dict[str, Any]], int]:
    """The data set, the mode, the tables of settings here, and the seed; see `julia.convert`.

    Raises:
        CommandError: a value is of another type or range than the program expects.
    """
    # With a data set given, the file's may be one that is not here.
    in_file = old.choice("training.dataset", _DATASETS, "cifar10") if dataset is None else old.text("training.dataset")
    name = in_file if dataset is None else dataset
    if _DATASETS.get(in_file, in_file) != name:
        old.changed("training.dataset", f"{name}, by --dataset")
    resolution = old.whole("training.image_res", old.whole("model.gen.image_res", 32))
    data: dict[str, Any] = {"size": resolution}
    if old.whole("model.gen.img_channels", 3) == 1 and name not in ("MNIST", "FASHION_MNIST"):
        data["grey"] = True
    is_neural = old.choice("model.base", {"kaem": False, "neural": True}, "kaem")
    model = {"num_latents": old.whole("model.z_dim", 100), **(_convert_energy(old) if is_neural else _convert_kan(old))}
    if old.number("model.ebm.p0_stddev", 1.0) != 1:
        old.changed("model.ebm.p0_stddev", "1, the scale of the normal reference")
    scale = old.number("model.gen.gaussian_stddev", 0.3)
    old.changed("model.gen.gaussian_stddev", f"{scale / 2:g}, for images lie in [0, 1] here and in [-1, 1] there")
    model |= {"generator": "conv", "hidden": _channels(old), "scale": scale / 2}
    num_temperatures = old.whole("model.thermo.num_temps", 1)
    is_thermo = num_temperatures > 1 and mode != "vanilla" and not is_neural
    if is_neural and num_temperatures > 1:
        old.changed("model.thermo.num_temps", "a latent-ebm is trained by langevin, without temperatures")
    if mode == "thermo" and not is_thermo:
        raise CommandError(
            "--mode is thermo, but the file has no temperatures: expected vanilla, or num_temps above 1."
        )
    mode = "thermo" if is_thermo else "langevin"
    strategy: dict[str, Any] = {
        "kernel": "ula",
        "step_size": old.number("model.gen.mcmc.stepsize", 0.01),
        "num_steps": old.whole("model.gen.mcmc.numsteps", 60),
    }
    if is_thermo:
        # Both adapt the temperatures, and count t = 0.
        strategy |= {"num_temperatures": num_temperatures, "objective": "thermodynamic"}
    training: dict[str, Any] = {
        "num_epochs": old.whole("training.epochs", 100),
        "batch_size": old.whole("training.global_batch_size", 128),
        "learning_rate": _learning_rate(old),
    }
    if old.whole("logging.sample_every", 10) > 0:
        training["sample_every"] = old.whole("logging.sample_every", 10)
    seed = old.whole("model.seed", 0)
    kind = "latent-ebm" if is_neural else "KAEM"
    old.remark_on_the_rest(KNOWN, f"by a {kind} trained by {mode}")
    tables = {"data": data, "model": model, mode: strategy, "training": training}
    return name, mode, tables, seed


def _convert_energy(old: OldSettings) -> dict[str, Any]:
    return {"kind": "latent-ebm", "energy_hidden": old.wholes("model.ebm.layer_widths", (200, 200, 1))[:-1]}


def _convert_kan(old: OldSettings) -> dict[str, Any]:
    word = old.text("model.kaem.kan.basis", "rbf")
    basis = old.choice("model.kaem.kan.basis", _BASES, "rbf")
    is_mixture = old.flag("model.kaem.mixture", True)
    size = old.whole(f"model.kaem.kan.{word}.{_SIZES[word]}", 3)
    if word == "spline" and old.whole("model.kaem.kan.spline.k", 3) != 3:
        old.changed("model.kaem.kan.spline.k", "3, the degree of the command line's splines")
    domain = old.numbers(f"model.kaem.kan.{word}.grid_range", (-1.0, 1.0)) if word in ("rbf", "spline") else (-1.0, 1.0)
    num_inputs = old.whole("model.z_dim", 100)
    # The program's own rule: z_dim = 2 P + 1 mixtures of P components, or z_dim sums of 2 z_dim + 1 latents.
    if is_mixture:
        shape = {"num_components": max(1, (num_inputs - 1) // 2)}
    else:
        shape = {"num_latents": num_inputs, "num_components": 2 * num_inputs + 1}
    return {
        "layout": "mixture" if is_mixture else "product", **shape, "basis": basis, "num_basis": size, "domain": domain,
        "reference": "normal",
    }  # fmt: skip


def _channels(old: OldSettings) -> tuple[int, ...]:
    blocks = old.value("model.gen.blocks")
    if blocks is None:
        raise CommandError(
            "The file lacks model.gen.blocks, which are in another file of the program: give the composed one."
        )
    if not isinstance(blocks, list) or not all(isinstance(x, dict) and type(x.get("channels")) is int for x in blocks):
        raise CommandError("model.gen.blocks is no list of blocks with channels.")
    first, *others = ({"kernel_size": 4, "stride": 1, "padding": "SAME", **block} for block in blocks)
    usual = [(4, 1, "VALID"), *[(4, 2, "SAME")] * len(others)]
    if [(x["kernel_size"], x["stride"], x["padding"]) for x in (first, *others)] != usual:
        old.changed("model.gen.blocks", "kernel 4 and stride 2 everywhere, after a linear layer")
    return tuple(block["channels"] for block in blocks)


def _learning_rate(old: OldSettings) -> float:
    generator, energy = (old.number(f"model.{x}.optim.lr_init", 1e-4) for x in ("gen", "ebm"))
    if energy != generator:
        old.changed("model.ebm.optim.lr_init", f"{generator:g}, the generator's: one rate holds for all parameters")
    return generator
