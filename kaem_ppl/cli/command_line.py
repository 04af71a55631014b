"""The command `kaem`: words to settings, errors to one line."""

import argparse
import linecache
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import jax

from ..models import DATASETS, fetch_dataset
from .config import STRATEGIES, flags, resolve
from .errors import CommandError
from .run_folder import RunFolder, new_run_folder

_SAMPLERS, _METHODS = ("mala", "nuts", "tempering"), ("tempering", "smc", "ais", "importance")
_DESCRIPTION = "Kolmogorov-Arnold Energy Models: train them, and look at what they learnt."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: words after `kaem`; None takes those of this process.

    Returns:
        The exit status: 0, 1 where something went wrong on the way, or 2 where something was asked for wrongly.
    """
    try:
        options = _parser().parse_args(arguments)
        return options.run(options) or 0
    except CommandError as error:
        return _fail(error, error.status)
    except KeyboardInterrupt:
        return _fail("stopped. Go on with `kaem train --resume RUN`.", 130)
    except (ValueError, ImportError, OSError) as error:
        if not _is_told(error):
            raise
        return _fail(error, 2)


def _is_told(error):
    """Whether the message says what to do: a file that can't be used, a package to install, or a value refused here.

    Any other error of these kinds is a bug, whose traceback is worth more than one line.
    """
    if isinstance(error, OSError):
        return True
    if isinstance(error, ModuleNotFoundError):
        return not error.name.startswith("kaem_ppl")
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    statement = linecache.getline(frame.f_code.co_filename, line).strip()
    return frame.f_globals["__name__"].startswith("kaem_ppl.") and statement.startswith("raise ")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise CommandError(f"{message}. See `{self.prog} --help`.")


def _parser():
    parser = _Parser(prog="kaem", description=_DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_train(commands)
    sequential = _add(commands, "train-sequential", _train_sequential, "train one run after another")
    sequential.add_argument("jobs", type=Path, metavar="FILE", help="lines of DATASET MODE; # starts a comment")
    data = _add(commands, "data", _data, "download the files of a data set")
    data.add_argument("dataset", choices=tuple(DATASETS), metavar="DATASET", help=", ".join(DATASETS))
    sample = _add_look(commands, "sample", _sample, "draw data from a trained model")
    sample.add_argument("--num-samples", type=_positive, default=64, help="how many (%(default)s)")
    evaluate = _add_look(commands, "evaluate", _evaluate, "weigh held-out data by draws from the prior")
    evaluate.add_argument("--num-data", type=_positive, help="of the held-out data (all)")
    evaluate.add_argument("--num-draws", type=_positive, default=10_000, help="of the prior (%(default)s)")
    diagnose = _add_look(commands, "diagnose", _diagnose, "draw from the posterior, and judge the draws")
    diagnose.add_argument("--sampler", choices=_SAMPLERS, default="mala", help="how to draw (%(default)s)")
    evidence = _add_look(commands, "evidence", _evidence, "estimate the log-evidence of held-out data")
    evidence.add_argument("--method", choices=_METHODS, default="tempering", help="how to estimate (%(default)s)")
    for command in (diagnose, evidence):
        command.add_argument("--num-data", type=_positive, default=4, help="of the held-out data (%(default)s)")
        command.add_argument("--num-chains", type=_positive, default=4, help="for each datum (%(default)s)")
        command.add_argument("--num-samples", type=_positive, default=500, help="of each chain (%(default)s)")
    _add_look(commands, "plot", _plot, "draw figures of the training and of the prior")
    return parser


def _add(commands, name, run, text):
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _add_look(commands, name, run, text):
    command = _add(commands, name, run, text)
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a run")
    command.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="whose parameters: the last, or those of least loss",
    )
    command.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    return command


def _add_train(commands):
    command = _add(commands, "train", _train, "train a model, or go on with a run")
    command.add_argument("mode", nargs="?", metavar="MODE", help=f"how to train: {', '.join(STRATEGIES)}")
    command.add_argument("--dataset", metavar="NAME", help=", ".join(DATASETS))
    command.add_argument("--config", type=Path, metavar="FILE", help="settings over those of the data set's preset")
    command.add_argument("--run-dir", type=Path, metavar="DIR", help="folder of the run (runs/DATASET-MODE)")
    command.add_argument("--resume", type=Path, metavar="RUN", help="go on with this run")
    command.add_argument("--seed", metavar="INT", help="of all that is random (0)")
    command.add_argument("--distributed", action="store_true", help="be one of several processes")
    groups = {}
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


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small: expected at least 1")
    return value


_positive.__name__ = "whole number"


def _train(options):
    given = {name[5:]: value for name, value in vars(options).items() if name.startswith("flag_")}
    if options.resume is not None:
        _check_resume(options)
        folder = RunFolder(options.resume)
        folder.read_config()
        config = resolve(options.dataset, options.mode, options.resume / "config.toml", given, options.seed)
    else:
        config = resolve(options.dataset, options.mode, options.config, given, options.seed)
        folder = new_run_folder(config) if options.run_dir is None else RunFolder(options.run_dir)
    if options.distributed:
        if options.resume is None and options.run_dir is None:
            raise CommandError("--distributed wants --run-dir: the same folder for all processes.")
        from .devices import start_processes

        start_processes()
    # Only now: inference makes arrays when it is imported, and processes have to join before the first one.
    from .train import resume, train

    # What ends a job on a cluster leaves a checkpoint behind, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    (train if options.resume is None else resume)(folder=folder, config=config, progress_bar=sys.stderr.isatty())


def _check_resume(options):
    for name in ("config", "run_dir"):
        if getattr(options, name) is not None:
            raise CommandError(f"--{name.replace('_', '-')} and --resume exclude each other: a run keeps its own.")


def _train_sequential(options):
    from .sequential import train_sequential

    return 1 if train_sequential(options.jobs) else 0


def _data(options):
    print(f"{options.dataset} is in {fetch_dataset(options.dataset)}")


def _open(options):
    from .saved_run import open_run

    return open_run(RunFolder(options.folder), options.checkpoint, sys.stderr.isatty()), jax.random.key(options.seed)


def _sample(options):
    from .sample import sample

    sample(*_open(options), options.num_samples)


def _evaluate(options):
    from .evaluate import evaluate

    evaluate(*_open(options), options.num_data, options.num_draws)


def _diagnose(options):
    from .diagnose import diagnose

    diagnose(
        *_open(options), options.sampler, options.num_data, options.num_chains, options.num_samples, sys.stderr.isatty()
    )


def _evidence(options):
    from .evidence import evidence

    evidence(
        *_open(options), options.method, options.num_data, options.num_chains, options.num_samples, sys.stderr.isatty()
    )


def _plot(options):
    from .plot import plot

    plot(_open(options)[0])


def _fail(error, status):
    print(f"kaem: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status
