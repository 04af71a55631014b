"""The argument parser of `kaem`: commands, flags and help texts."""

import argparse
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from ..models import DATASETS
from .errors import CommandError
from .settings.config import PRESET_NAMES, flags
from .settings.parsing import MAX_COUNT, check_seed
from .settings.tables import MODE_ALIASES, STRATEGIES

# R-hat and effective sizes are not defined for fewer.
FEWEST_SAMPLES = 4
SAMPLERS, METHODS = ("mala", "nuts", "tempering"), ("tempering", "smc", "ais", "importance")
OBJECTIVES = ("distance", "evidence")
_DESCRIPTION = "Train Kolmogorov-Arnold Energy Models, and sample and evaluate them."
_EXIT_STATUS = """exit status:
  0    done
  1    a failure on the way: a loss that is not finite, a full disk, too little memory, a damaged checkpoint,
       a failed job
  2    wrong arguments, settings or files; nothing was changed
  130  stopped by Ctrl-C, 143 by SIGTERM; training leaves a checkpoint to resume from"""
_FLAG, _NEGATIVE = re.compile(r"--[a-z][a-z-]*"), re.compile(r"-[\d.]")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}. See `{self.prog} --help`.")


type _Commands = "argparse._SubParsersAction[_Parser]"


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words after `kaem`; the name of the command is `command`, and the words are kept as `words`.

    Raises:
        CommandError: they are not a command.
    """
    options = _make_parser().parse_args(_join_negative_values(words))
    options.words = tuple(words)
    if options.command in ("diagnose", "evidence"):
        _check_chains(options)
    return options


def _check_chains(options: argparse.Namespace) -> None:
    flag, method = ("--sampler", "sampler") if options.command == "diagnose" else ("--method", "method")
    if options.num_temperatures is not None and getattr(options, method) != "tempering":
        raise CommandError(f"--num-temperatures belongs to tempering, not to {flag} {getattr(options, method)}.")
    if options.num_temperatures is not None and options.num_temperatures < 2:
        raise CommandError(f"--num-temperatures is {options.num_temperatures}: expected at least 2.")
    if options.num_samples < FEWEST_SAMPLES:
        raise CommandError(f"--num-samples is {options.num_samples}: expected at least {FEWEST_SAMPLES}.")


def given_flags(options: argparse.Namespace) -> dict[str, str]:
    """Settings given as flags of `train`, as they were written, by the flag's name without dashes."""
    return {name[5:]: value for name, value in vars(options).items() if name.startswith("flag_")}


def _join_negative_values(words: Sequence[str]) -> list[str]:
    """Write `--domain -3,3` as `--domain=-3,3`: argparse takes the value for a flag otherwise."""
    joined: list[str] = []
    for word in words:
        if joined and _NEGATIVE.match(word) and _FLAG.fullmatch(joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _make_parser() -> _Parser:
    parser = _Parser(
        prog="kaem", description=_DESCRIPTION, epilog=_EXIT_STATUS, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"kaem-ppl {metadata.version('kaem-ppl')}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=_Parser
    )
    _add_train(commands)
    _add_tune(commands)
    sequential = _add(commands, "train-sequential", "train one run after another; those that are complete are skipped")
    sequential.add_argument("jobs", type=Path, metavar="FILE", help="lines of DATASET MODE [FLAGS]; # starts a comment")
    _add_convert(commands)
    data = _add(commands, "data", "download the files of a data set")
    data.add_argument("dataset", choices=tuple(DATASETS), metavar="DATASET", help=", ".join(DATASETS))
    sample = _add_for_run(commands, "sample", "draw data from a trained model")
    sample.add_argument("--num-samples", type=_positive, default=64, help="number of samples (%(default)s)")
    evaluate = _add_for_run(commands, "evaluate", "estimate held-out log-likelihood by importance sampling")
    evaluate.add_argument("--num-data", type=_positive, help="first held-out data to evaluate (all)")
    evaluate.add_argument("--num-draws", type=_positive, default=10_000, help="draws from the prior (%(default)s)")
    evaluate.add_argument(
        "--distance", action="store_true", help="also measure how far samples are from held-out images with classes"
    )
    diagnose = _add_for_run(commands, "diagnose", "draw from the posterior, and report convergence diagnostics")
    diagnose.add_argument("--sampler", choices=SAMPLERS, default="mala", help="posterior sampler (%(default)s)")
    evidence = _add_for_run(commands, "evidence", "estimate the log-evidence of held-out data")
    evidence.add_argument("--method", choices=METHODS, default="tempering", help="estimator (%(default)s)")
    for command in (diagnose, evidence):
        command.add_argument("--num-data", type=_positive, default=4, help="first held-out data to use (%(default)s)")
        command.add_argument("--num-chains", type=_positive, default=4, help="chains for each datum (%(default)s)")
        command.add_argument("--num-samples", type=_positive, default=500, help="draws of each chain (%(default)s)")
        command.add_argument("--num-temperatures", type=_positive, help="of tempering (its default)")
    _add_for_run(commands, "plot", "plot the training history and the learnt prior")
    _add_for_run(commands, "report", "write one HTML page with figures, results so far and settings")
    traverse = _add_for_run(commands, "traverse", "move the latents that change the output most, one by one")
    traverse.add_argument("--num-latents", type=_positive, default=8, help="latents shown (%(default)s)")
    interpolate = _add_for_run(commands, "interpolate", "draw paths between held-out data, through their latents")
    interpolate.add_argument("--num-pairs", type=_positive, default=6, help="pairs of held-out data (%(default)s)")
    interpolate.add_argument(
        "--num-steps", type=_positive, default=300, help="steps of MALA to a datum's latents (%(default)s)"
    )
    for command in (traverse, interpolate):
        command.add_argument("--num-points", type=_at_least_two, default=9, help="images of a row (%(default)s)")
    return parser


def _add(commands: _Commands, name: str, text: str) -> _Parser:
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)


def _add_for_run(commands: _Commands, name: str, text: str) -> _Parser:
    """A command on a trained run."""
    command = _add(commands, name, text)
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a run")
    command.add_argument(
        "--checkpoint", choices=("last", "best"), default="last", help="parameters to use: last, or of lowest loss"
    )
    command.add_argument("--seed", type=_seed, default=0, help="random seed (%(default)s)")
    command.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (RUN/results/COMMAND-TIME)")
    command.add_argument("--force", action="store_true", help="replace results that are in --out")
    return command


def _add_train(commands: _Commands) -> None:
    command = _add(commands, "train", "train a model, or resume a run")
    aliases = ", ".join(f"{alias} for {name}" for alias, name in MODE_ALIASES.items())
    command.add_argument(
        "mode", nargs="?", metavar="MODE", help=f"training strategy: {', '.join(STRATEGIES)} ({aliases})"
    )
    command.add_argument("--dataset", metavar="NAME", help=", ".join(DATASETS))
    command.add_argument(
        "--preset", choices=PRESET_NAMES, default="best", help="settings to begin with: our best, or the papers' own"
    )
    command.add_argument("--config", type=Path, metavar="FILE", help="settings that override the data set's preset")
    command.add_argument("--run-dir", type=Path, metavar="DIR", help="folder of the run (runs/DATASET-MODE)")
    command.add_argument("--resume", type=Path, metavar="RUN", help="continue this run")
    command.add_argument("--seed", metavar="INT", help="random seed (0)")
    command.add_argument("--distributed", action="store_true", help="run as one of several processes")
    _add_settings(command)


def _add_convert(commands: _Commands) -> None:
    command = _add(
        commands, "convert", "convert settings of the earlier KAEM programs, INI or YAML, into a file for --config"
    )
    command.add_argument(
        "file", type=Path, metavar="FILE", help="settings to convert; its ending says which of the two"
    )
    command.add_argument(
        "--dataset",
        choices=tuple(DATASETS),
        metavar="NAME",
        help="data set to train on (the file's)",
    )
    command.add_argument(
        "--mode",
        choices=("vanilla", "thermo"),
        help="mode of the earlier program (thermo where the file has temperatures)",
    )
    command.add_argument("--out", type=Path, metavar="TOML", help="file to write (standard output)")
    command.add_argument("--force", action="store_true", help="replace a file that is there")


def _add_tune(commands: _Commands) -> None:
    command = _add(commands, "tune", "search for settings by Optuna; those given as flags are kept")
    command.add_argument("--dataset", metavar="NAME", required=True, help=", ".join(DATASETS))
    command.add_argument("--run-dir", type=Path, metavar="DIR", required=True, help="folder of the search, to go on in")
    command.add_argument("--trials", type=_positive, default=20, help="trainings in all (%(default)s)")
    command.add_argument("--judge-by", choices=OBJECTIVES, default="distance", help="what decides (%(default)s)")
    command.add_argument("--preset", choices=PRESET_NAMES, default="best", help="settings that are not searched")
    command.add_argument("--seed", metavar="INT", help="random seed (0)")
    _add_settings(command)


def _add_settings(command: _Parser) -> None:
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, places in flags().items():
        tables = " and ".join(table for table, _ in places)
        if tables not in groups:
            groups[tables] = command.add_argument_group(f"settings of {tables}")
        setting = places[0][1]
        text = setting.metadata["help"]
        if setting.metadata["choices"]:
            text += f": {', '.join(setting.metadata['choices'])}"
        groups[tables].add_argument(
            f"--{name}", dest=f"flag_{name}", metavar="VALUE", default=argparse.SUPPRESS, help=text
        )


def _positive(text: str) -> int:
    return _count(text, 1)


def _at_least_two(text: str) -> int:
    return _count(text, 2)


def _count(text: str, least: int) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is too small: expected at least {least}")
    if value > MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text} is too large: expected at most {MAX_COUNT}")
    return value


def _seed(text: str) -> int:
    return check_seed("--seed", int(text))


_positive.__name__ = _at_least_two.__name__ = _seed.__name__ = "whole number"
