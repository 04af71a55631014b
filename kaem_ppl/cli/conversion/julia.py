"""Settings files of the Julia program (INI; arXiv 2506.14167): what each key becomes here."""
# ruff: noqa: RUF001 - keys have Greek letters

import configparser
import unicodedata
from pathlib import Path
from typing import Any

from ..errors import CommandError
from .old_settings import OldSettings

_DATASETS = {
    "MNIST": "MNIST", "FMNIST": "FASHION_MNIST", "CIFAR10": "CIFAR10", "CIFAR10PANG": "CIFAR10", "SVHN": "SVHN",
    "SVHNPANG": "SVHN", "CELEBA": "CELEBA", "CELEBAPANG": "CELEBA", "PTB": "PENN_TREEBANK", "SMS_SPAM": "SMS_SPAM",
    "DARCY_FLOW": "DARCY_FLOW",
}  # fmt: skip
# Height and width that the program resizes images to, and solves fields at.
_SIZES = {"CIFAR10": 32, "SVHN": 32, "CELEBA": 64, "DARCY_FLOW": 32}
_BASES = {
    "RBF": "RBF", "B-spline": "BSpline", "FFT": "Fourier", "Cheby": "Chebyshev", "RSWAF": "RSWAF", "Morlet": "Morlet",
}  # fmt: skip
# By the name of the reference density: its name here, and the interval that the program learns on; None takes `grid_range`.
_REFERENCES: dict[str, tuple[str, tuple[float, float] | None]] = {
    "ebm": ("uniform", None),
    "uniform": ("uniform", (0.0, 1.0)),
    "gaussian": ("normal", (-1.2, 1.2)),
    "lognormal": ("lognormal", (0.0, 4.0)),
    "learnable_gaussian": ("normal", None),
}
_INITIAL = "parameters begin at values of this package's own"
_WIDTH = "the command line takes each basis's own; in Python, `RBF(width=, trainable_width=)`"
_GRIDS = "grids stay where they are; in Python, `fit(grids=AdaptiveGrid())` refits them"
_NETWORK = "the generator's own; in Python, `KANGenerator(basis=, domain=)`"
_QUADRATURE = "panels of 15 nodes each are refined until the measured error is small"
_CHAIN = '`kernel = "mala"` adapts its step size by itself'
_ADAM = "Adam's own values"
_SHAPES = "every deconvolution has kernel 4 and stride 2, and starts from a linear layer"
_FORMULAE = "the loss has no such term; `symbolify` reads formulae from a trained prior"
_PRECISION = "numbers are float32, or float64 where JAX_ENABLE_X64 is set"
_TUNING = "`kaem tune` searches, with flags of its own"
_MIXTURE = "a mixture's weights are softmax of free parameters, without a penalty"
# Every key: None where it is read, else why there is no such setting.
KNOWN: dict[str, str | None] = {
    **dict.fromkeys(
        (
            "EbmModel.layer_widths", "EbmModel.spline_degree", "EbmModel.spline_function", "EbmModel.grid_size",
            "EbmModel.grid_range", "EbmModel.π_0", "EbmModel.base_activation", "MixtureModel.use_mixture_prior",
            "MixtureModel.train_proportions", "GeneratorModel.widths", "GeneratorModel.generator_variance",
            "GeneratorModel.output_activation", "GeneratorModel.resampler", "POST_LANGEVIN.use_langevin",
            "POST_LANGEVIN.use_autoMALA", "POST_LANGEVIN.initial_step_size", "POST_LANGEVIN.iters",
            "THERMODYNAMIC_INTEGRATION.num_temps", "THERMODYNAMIC_INTEGRATION.p_start",
            "THERMODYNAMIC_INTEGRATION.p_end", "THERMODYNAMIC_INTEGRATION.num_cycles", "TRAINING.batch_size",
            "TRAINING.N_train", "TRAINING.N_test", "TRAINING.N_epochs", "TRAINING.dataset", "TRAINING.gen_every",
            "TRAINING.importance_sample_size", "TRAINING.resampling_threshold_factor", "CNN.use_cnn_lkhood",
            "CNN.hidden_feature_dims", "SEQ.sequence_length", "SEQ.vocab_size", "SEQ.d_model", "OPTIMIZER.type",
            "OPTIMIZER.learning_rate",
        )
    ),
    **dict.fromkeys((f"EbmModel.{x}" for x in ("ε_scale", "μ_scale", "σ_base", "σ_spline")), _INITIAL),
    **dict.fromkeys((f"EbmModel.{x}" for x in ("init_τ", "τ_trainable")), _WIDTH),
    **dict.fromkeys((f"EbmModel.{x}" for x in ("GaussQuad_nodes", "quadrature_method")), _QUADRATURE),
    **dict.fromkeys(("EbmModel.grid_update_ratio", "GeneratorModel.grid_update_ratio", "TRAINING.update_grid"), _GRIDS),
    **dict.fromkeys(
        (
            f"GRID_UPDATING.{x}"
            for x in (
                "update_prior_grid", "update_llhood_grid", "num_grid_updating_samples", "grid_update_frequency",
                "grid_update_decay",
            )
        ),
        _GRIDS,
    ),
    "EbmModel.layernorm": "a prior has one layer of functions, with nothing to normalise",
    "GeneratorModel.layernorm": "generators of images have no normalisation layers",
    "MixtureModel.λ_reg": _MIXTURE,
    "MixtureModel.use_attention_kernel": _MIXTURE,
    **dict.fromkeys(
        (
            f"GeneratorModel.{x}"
            for x in (
                "spline_degree", "base_activation", "spline_function", "grid_size", "grid_range", "ε_scale", "μ_scale",
                "σ_base", "σ_spline", "init_τ", "τ_trainable", "output_dim",
            )
        ),
        _NETWORK,
    ),
    "GeneratorModel.generator_noise": "nothing is added to the generator's output; the likelihood's noise is `scale`",
    "GeneratorModel.perceptual_scale": "likelihoods have no perceptual term",
    "TRAINING.use_perceptual_loss": "likelihoods have no perceptual term",
    **dict.fromkeys(
        ("PRIOR_LANGEVIN.step_size", "PRIOR_LANGEVIN.iters"), "a KAEM's prior is sampled exactly, without a chain"
    ),
    **dict.fromkeys(
        (f"POST_LANGEVIN.{x}" for x in ("step_size_bounds", "N_unadjusted", "autoMALA_η_changerate")), _CHAIN
    ),
    "THERMODYNAMIC_INTEGRATION.N_langevin_per_temp": "`num_steps`, from [POST_LANGEVIN] iters, holds at every temperature",
    "THERMODYNAMIC_INTEGRATION.replica_exchange_frequency": "replicas are exchanged after every step",
    "TRAINING.num_generated_samples": "`kaem sample --num-samples`",
    "TRAINING.batch_size_for_gen": "`kaem sample` chooses its batches",
    "TRAINING.use_gpu": "JAX takes the accelerator that it finds",
    "TRAINING.verbose": "progress is always shown",
    "TRAINING.contrastive_divergence_training": "the normaliser is an integral, so that its gradient needs no contrast",
    "TRAINING.eps": "sums are computed in logarithms, and need no small number",
    "TRAINING.checkpoint_every": "checkpoints come by the clock: `checkpoint_minutes`",
    **dict.fromkeys((f"CNN.{x}" for x in ("strides", "kernel_sizes", "paddings")), _SHAPES),
    "CNN.activation": "deconvolutions have leaky ReLU",
    "CNN.batchnorm": "generators of images have no normalisation layers",
    "CNN.latent_concat": "latents enter at the first layer only",
    "SEQ.activation": "the attention decoder's own",
    **dict.fromkeys((f"OPTIMIZER.{x}" for x in ("betas", "decay", "ρ", "ε", "l-bfgs_memory")), _ADAM),
    **dict.fromkeys((f"LINE_SEARCH.{x}" for x in ("type", "c_1", "c_2", "rho")), "Adam has no line search"),
    **dict.fromkeys(
        ("LR_SCHEDULE.decay", "LR_SCHEDULE.milestone_epochs"),
        "the learning rate stays; `schedule` may be linear, cosine or warmup-cosine",
    ),
    **dict.fromkeys(("PCA.use_pca", "PCA.pca_components"), "models see the data themselves, not their components"),
    **dict.fromkeys(
        (
            f"SYMBOLIC_REG.{x}"
            for x in (
                "nonlin_threshold", "reg_factor", "λ_total", "λ_l1", "λ_entropy", "λ_coef", "λ_coefdiff",
                "regularize_prior", "regularize_gen",
            )
        ),
        _FORMULAE,
    ),
    **dict.fromkeys(
        (f"MIXED_PRECISION.{x}" for x in ("full_precision", "reduced_precision", "loss_scaling")), _PRECISION
    ),
    **dict.fromkeys(("TUNING.num_trials", "TUNING.sampler"), _TUNING),
}  # fmt: skip


def read_ini(file: Path, text: str) -> OldSettings:
    """The keys of an INI file. Upper and lower case are the same, as in the Julia program, which writes all in lower.

    Raises:
        CommandError: it is not INI, or has a key that the program does not.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False, inline_comment_prefixes=("#", ";"))
    try:
        # Greek letters have several codes.
        parser.read_string(unicodedata.normalize("NFKC", text))
    except configparser.Error as error:
        raise CommandError(f"{file} is not INI: {error}.") from None
    full = {name.lower(): name for name in KNOWN}
    values: dict[str, Any] = {}
    for section in parser.sections():
        for key, value in parser[section].items():
            name = f"{section}.{key}"
            values[full.get(name.lower(), name)] = value.strip('"')
    old = OldSettings(file, values, lambda name: "[{}] {}".format(*name.split(".", 1)))
    old.check_known(KNOWN)
    return old


def convert(old: OldSettings, dataset: str | None, mode: str | None) -> tuple[str, str, dict[str, dict[str, Any]]]:
    """The data set, the mode, and the tables of settings here.

    Args:
        old: of the file.
        dataset: its name here; None takes the file's.
        mode: `thermo` or `vanilla`, as there; None takes `thermo` where the file has temperatures.

    Raises:
        CommandError: a value is of another type or range than the program expects.
    """
    in_file = old.choice("TRAINING.dataset", _DATASETS, "MNIST")
    name = in_file if dataset is None else dataset
    if name != in_file:
        old.changed("TRAINING.dataset", f"{name}, by --dataset")
    elif dataset is None:
        old.changed("TRAINING.dataset", f"{name}, though the program is told its data set elsewhere: see --dataset")
    data: dict[str, Any] = {
        key: old.whole(f"TRAINING.{there}", 1)
        for key, there in (("num_train", "N_train"), ("num_test", "N_test"))
        if old.has(f"TRAINING.{there}")
    }
    if name in _SIZES:
        data["size"] = _SIZES[name]
    is_text = name in ("PENN_TREEBANK", "SMS_SPAM")
    if is_text:
        data |= {"length": old.whole("SEQ.sequence_length", 500), "vocabulary_size": old.whole("SEQ.vocab_size", 500)}
    model = _convert_prior(old) | _convert_generator(old, is_text)
    is_deep = model.get("kind") == "latent-ebm"
    mode = _choose_mode(old, mode, is_deep)
    training: dict[str, Any] = {
        "num_epochs": old.whole("TRAINING.N_epochs", 10),
        "batch_size": old.whole("TRAINING.batch_size", 100),
        "learning_rate": old.number("OPTIMIZER.learning_rate", 1e-3),
    }
    if (rule := old.text("OPTIMIZER.type", "adam")) != "adam":
        old.changed("OPTIMIZER.type", f"Adam, the only optimiser of the command line, in place of {rule}")
    if not is_text and old.whole("TRAINING.gen_every", 0) > 0:
        training["sample_every"] = old.whole("TRAINING.gen_every", 1)
    strategy = _convert_strategy(old, mode, training["num_epochs"], training["batch_size"])
    kind = "latent-ebm" if is_deep else "KAEM"
    old.remark_on_the_rest(KNOWN, f"by a {kind} with generator {model['generator']}, trained by {mode}")
    return name, mode, {"data": data, "model": model, mode: strategy, "training": training}


def _choose_mode(old: OldSettings, mode: str | None, is_deep: bool) -> str:
    num_temperatures = old.whole("THERMODYNAMIC_INTEGRATION.num_temps", -1)
    has_chain = old.flag("POST_LANGEVIN.use_langevin") or old.flag("POST_LANGEVIN.use_autoMALA")
    if num_temperatures > 1 and mode != "vanilla":
        if not is_deep:
            return "thermo"
        old.changed("THERMODYNAMIC_INTEGRATION.num_temps", "a latent-ebm is trained by langevin, without temperatures")
    if mode == "thermo" and not is_deep:
        raise CommandError(
            "--mode is thermo, but the file has no temperatures: expected vanilla, or num_temps above 1."
        )
    return "langevin" if has_chain or is_deep else "importance"


def _convert_prior(old: OldSettings) -> dict[str, Any]:
    widths = old.wholes("EbmModel.layer_widths", (20, 41))
    if len(widths) < 2:
        raise CommandError(f"[EbmModel] layer_widths is {list(widths)}: expected P and Q, or the layers of an energy.")
    if len(widths) > 2:
        if widths[-1] != 1:
            old.changed("EbmModel.layer_widths", "an energy has one output")
        if old.has("EbmModel.π_0"):
            old.choice("EbmModel.π_0", _REFERENCES, "ebm")
            old.changed("EbmModel.π_0", "normal, the reference of a latent-ebm, whose energy is a perceptron")
        return {"kind": "latent-ebm", "num_latents": widths[0], "energy_hidden": widths[1:-1]}
    is_mixture = old.flag("MixtureModel.use_mixture_prior")
    if is_mixture and old.has("MixtureModel.train_proportions") and not old.flag("MixtureModel.train_proportions"):
        old.changed("MixtureModel.train_proportions", "true: the weights of a mixture are always learnt")
    basis = old.choice("EbmModel.spline_function", _BASES, "RBF")
    num_basis = old.whole("EbmModel.grid_size", 20)
    if basis == "Chebyshev":
        num_basis = old.whole("EbmModel.spline_degree", 3)
    elif basis == "BSpline" and old.whole("EbmModel.spline_degree", 3) != 3:
        old.changed("EbmModel.spline_degree", "3, the degree of the command line's splines")
    reference, domain = old.choice("EbmModel.π_0", _REFERENCES, "ebm")
    grid = old.numbers("EbmModel.grid_range", (-1.2, 1.2))
    if domain is not None and tuple(grid) != domain:
        old.changed("EbmModel.grid_range", f"{domain[0]:g}, {domain[1]:g}, the program's own for this π_0")
    if old.text("EbmModel.π_0", "ebm") == "learnable_gaussian":
        old.changed("EbmModel.π_0", "a standard normal, whose mean and scale are not learnt")
    if old.text("EbmModel.base_activation", "silu") != "silu":
        old.changed("EbmModel.base_activation", "silu, the base function of the command line's energies")
    return {
        "layout": "mixture" if is_mixture else "product",
        "num_latents": widths[-1],
        "num_components": widths[0],
        "basis": basis,
        "num_basis": num_basis,
        "domain": grid if domain is None else domain,
        "reference": reference,
    }


def _convert_generator(old: OldSettings, is_text: bool) -> dict[str, Any]:
    if is_text:
        return {"generator": "sequence", "width": old.whole("SEQ.d_model", 512)}
    # Its name says variance, and the program squares it.
    scale = {"scale": old.number("GeneratorModel.generator_variance", 0.1)}
    if old.text("GeneratorModel.output_activation", "sigmoid") != "sigmoid":
        old.changed("GeneratorModel.output_activation", "sigmoid for images, none for fields")
    if old.flag("CNN.use_cnn_lkhood"):
        return {"generator": "conv", "hidden": old.wholes("CNN.hidden_feature_dims", (128, 64, 32)), **scale}
    hidden = old.wholes("GeneratorModel.widths", (41, 82))[1:]
    return {"generator": "kan", "hidden": hidden, **scale}


def _convert_strategy(old: OldSettings, mode: str, num_epochs: int, batch_size: int) -> dict[str, Any]:
    if mode == "importance":
        # Without a number of their own, there are as many draws as data in a batch.
        return {
            "num_particles": old.whole("TRAINING.importance_sample_size", batch_size),
            "ess_threshold": old.number("TRAINING.resampling_threshold_factor", 0.5),
            "resampler": old.text("GeneratorModel.resampler", "systematic"),
        }
    chain: dict[str, Any] = {
        "kernel": "mala" if old.flag("POST_LANGEVIN.use_autoMALA") else "ula",
        "step_size": old.number("POST_LANGEVIN.initial_step_size", 0.01),
        "num_steps": old.whole("POST_LANGEVIN.iters", 40),
    }
    if chain["kernel"] == "mala":
        old.changed("POST_LANGEVIN.use_autoMALA", "mala, whose step size is adapted from update to update")
    if mode == "langevin":
        return chain
    start, end = (old.number(f"THERMODYNAMIC_INTEGRATION.{x}", 1.0) for x in ("p_start", "p_end"))
    if start > end:
        old.changed(
            "THERMODYNAMIC_INTEGRATION.p_start", f"the power goes from {end:g} to {start:g}: the lower is first"
        )
    replicas = old.whole("THERMODYNAMIC_INTEGRATION.num_temps", 2) + 1
    old.changed("THERMODYNAMIC_INTEGRATION.num_temps", f"{replicas}, for t = 0, the prior, is counted here")
    # Over all epochs the power makes `num_cycles` cycles and a half.
    period = max(1, round(num_epochs / (old.whole("THERMODYNAMIC_INTEGRATION.num_cycles", 0) + 0.5)))
    power = (start,) if start == end else tuple(sorted((start, end)))
    return {
        **chain, "num_temperatures": replicas, "power": power, "power_period": period, "objective": "thermodynamic",
    }  # fmt: skip
