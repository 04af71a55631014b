"""`kaem tune`: search for settings by Optuna, each judged on images or data that training does not see."""

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ...inference import (
    HMC,
    AnnealedImportanceSampling,
    NonFiniteLossError,
    PowerLadder,
    TrainingState,
    fit,
    log_evidence,
)
from ...models import Dataset, kernel_distance, split_dataset, train_classifier
from ...progress import Progress
from ..building.data import is_field, load_data
from ..building.draws import generate, model_params
from ..building.model import build_model, build_optimizer, build_strategy
from ..errors import CommandError
from ..messages import as_command, print_result
from ..settings.config import Config, differences, flags, parse_config, resolve
from ..stopping import StopSignals
from ..storage.lock import locked
from ..storage.run_folder import RunFolder

if TYPE_CHECKING:
    import optuna

BEST, STUDY, TABLE = "best.toml", "study.log", "trials.jsonl"
# Of the training data, what the search judges by; of each training, the moments when it is judged.
_VALIDATION_SHARE, _NUM_JUDGEMENTS = 0.15, 4
_NUM_EVALUATED = 32
_METHOD = AnnealedImportanceSampling(4, HMC(num_integration_steps=5), PowerLadder(33))


def tune(
    dataset: str,
    objective: str,
    num_trials: int,
    given: Mapping[str, str],
    seed: str | None,
    preset: str,
    folder: RunFolder,
    signals: StopSignals,
) -> None:
    """Search over strategy, noise scale, learning rate, schedule and average; write `best.toml` for `kaem train --config`.

    A part of the training data is held back from every training; held-out data of the data set are never read. Trainings
    that are worse than the median at a quarter, a half or three quarters of their epochs end there. The search goes on
    where it was stopped when it is called again with the same folder.

    Args:
        dataset: name of the data set.
        objective: `distance`, the kernel distance of generated images to held-back ones in a classifier's features, made
            small; or `evidence`, the log-evidence of held-back data, made large.
        num_trials: trainings in all, those of earlier calls among them.
        given: flags that hold for all trials, as they were written; what they set is not searched.
        seed: of the search and of each training, as it was written.
        preset: where settings that are not searched come from.
        folder: of the search.
        signals: that stop it.

    Raises:
        CommandError: settings do not fit the data, no trial was good, or Optuna is not installed.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise CommandError("kaem tune needs Optuna: `pip install kaem-ppl[tune]` brings it.") from error
    base = resolve(dataset, "importance", None, _of_mode(given, "importance"), seed, preset)
    # A trial that failed is told in one line, by `note`, and not by its traceback.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.make()
    with locked(folder.path), _removed_if_empty(folder):
        _check_folder(folder)
        judge = _Judge(base, objective)
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(folder.path / STUDY))), load_if_exists=True,
                study_name=f"{dataset}-{objective}", direction="minimize" if objective == "distance" else "maximize",
                sampler=optuna.samplers.TPESampler(seed=base.seed),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
            )  # fmt: skip
        except OSError:
            raise
        # Damaged lines lead Optuna to many kinds of errors.
        except Exception as error:
            raise CommandError(
                f"{folder.path / STUDY} is damaged: {error}. Give another --run-dir.", status=1
            ) from error
        _check_same_search(study, base, given, folder)

        def run(trial: "optuna.Trial") -> float:
            config = resolve(dataset, *_suggest(trial, given), seed, preset)
            return judge.train(trial, config, signals)

        def note(study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> None:
            line = {"trial": trial.number, "state": trial.state.name.lower(), "value": trial.value, **trial.params}
            with (folder.path / TABLE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            value = "none" if trial.value is None else f"{trial.value:.4g}"
            print_result(f"trial {trial.number + 1} of {num_trials}: {line['state']}, {objective} {value}")

        left = num_trials - len([x for x in study.trials if x.state.is_finished()])
        if left > 0:
            study.optimize(run, n_trials=left, callbacks=[note], catch=(NonFiniteLossError,))
        good = [x for x in study.trials if x.state is optuna.trial.TrialState.COMPLETE]
        if not good:
            raise CommandError("No trial came to its end: give more --trials, or other settings.", status=1)
        best = study.best_trial
        config = resolve(dataset, *_suggest(optuna.trial.FixedTrial(best.params), given), seed, preset)
        folder.write(BEST, config.to_toml())
    chosen = ", ".join(f"{name} {value}" for name, value in best.params.items())
    print_result(f"best of {len(good)} complete trials: {objective} {best.value:.4g} by {chosen}")
    print_result(f"train by {as_command('train', '--config', folder.path / BEST)}")


@contextmanager
def _removed_if_empty(folder: RunFolder) -> Iterator[None]:
    """Remove a folder that was made for nothing, and say what it can't be written for."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise CommandError(
            f"{folder.path} can't be written: {error.strerror}. Complete trials are kept: the same command goes on.",
            status=1,
        ) from error
    finally:
        if all(path.name == ".lock" for path in folder.path.iterdir()):
            folder.remove()


def _check_folder(folder: RunFolder) -> None:
    others = [path.name for path in folder.path.iterdir() if path.name != ".lock"]
    if others and STUDY not in others:
        raise CommandError(f"{folder.path} holds something else, such as {others[0]}: give another --run-dir.")


def _check_same_search(study: "optuna.Study", base: Config, given: Mapping[str, str], folder: RunFolder) -> None:
    """Keep what a search starts from with it, and raise where it is another one."""
    before, now = study.user_attrs.get("settings"), {"config": base.to_toml(), "given": dict(given)}
    if before is None:
        study.set_user_attr("settings", now)
    elif before != now:
        changed = differences(parse_config(before["config"], str(folder.path / STUDY)), base)
        names = [name for name, *_ in changed] or sorted(set(before["given"].items()) ^ set(given.items()))
        raise CommandError(
            f"{folder.path} is a search with other settings: {names[0]} differs. Restore them, or give another --run-dir."
        )


class _Judge:
    """Trains a trial's model, and judges it on data that are held back from its training."""

    def __init__(self, config: Config, objective: str) -> None:
        dataset = load_data(config, "train", False)
        number = int(_VALIDATION_SHARE * len(dataset))
        if number < 80:
            raise CommandError(
                f"A search holds back {_VALIDATION_SHARE:.0%} of the data, {number}: expected at least 80."
            )
        self._held_back, self._train = split_dataset(dataset, (number, len(dataset) - number))
        self._objective = objective
        if config.training.batch_size > len(self._train):
            raise CommandError(
                f"batch_size is {config.training.batch_size}, but a search trains on {len(self._train)} data: expected at "
                "most as many."
            )
        if objective == "distance":
            if dataset.labels is None or dataset.vocabulary is not None or is_field(config):
                raise CommandError(f"--judge-by distance needs images with classes, and {config.dataset} has none.")
            labels = np.asarray(self._train.labels, np.int32)
            Progress.innermost().begin("training a classifier")
            self._classifier = train_classifier(0, self._train.values, labels)
            self._real = self._classifier.features(self._held_back.values)

    def train(self, trial: "optuna.Trial", config: Config, signals: StopSignals) -> float:
        """The objective after the last epoch."""
        import optuna

        data, num_epochs = self._train, config.training.num_epochs
        moments = {-(-num_epochs * number // _NUM_JUDGEMENTS) for number in range(1, _NUM_JUDGEMENTS + 1)}
        model = build_model(config, data)
        judged: list[float] = []
        value = self._make_value(model, data)

        def callback(state: TrainingState, row: dict[str, float] | None) -> None:
            signals.check()
            epoch = int(state.epoch)
            if row is None or epoch not in moments:
                return
            judged.append(value(state))
            trial.report(judged[-1], epoch)
            if epoch < num_epochs and (not np.isfinite(judged[-1]) or trial.should_prune()):
                raise optuna.TrialPruned

        fit(
            jax.random.key(config.seed), model, {"x": data.values}, strategy=build_strategy(config, model, data),
            optimizer=build_optimizer(config, len(data)), num_epochs=num_epochs, average=config.training.average,
            batch_size=config.training.batch_size, callback=callback,
        )  # fmt: skip
        return judged[-1]

    def _make_value(self, model: Callable, data: Dataset) -> Callable[[TrainingState], float]:
        if self._objective == "evidence":

            def evidence(state: TrainingState) -> float:
                found = log_evidence(
                    jax.random.key(0), model, x=self._held_back.values[:_NUM_EVALUATED],
                    params=model_params(model, data, state), method=_METHOD, plate="data", num_chains=1,
                    progress_bar=False,
                )  # fmt: skip
                return float(np.mean(found.value))

            return evidence
        shape = self._held_back.values.shape
        # Compiled once for all moments.
        draw = jax.jit(lambda state: generate(jax.random.key(0), model, model_params(model, data, state), shape[0]))

        def distance(state: TrainingState) -> float:
            images = np.asarray(draw(state)).reshape(shape)
            if not np.isfinite(images).all():
                return np.inf
            return kernel_distance(self._classifier.features(np.clip(images, 0, 1)), self._real).value

        return distance


def _suggest(
    trial: "optuna.Trial | optuna.trial.FixedTrial", given: Mapping[str, str]
) -> tuple[str, None, dict[str, str]]:
    """Mode and flags of a trial; what is given is not searched."""
    mode = trial.suggest_categorical("mode", ["importance", "variational", "langevin"])
    searched: dict[str, Callable[[], Any]] = {
        "scale": lambda: trial.suggest_float("scale", 0.05, 0.5, log=True),
        "learn-scale": lambda: trial.suggest_categorical("learn-scale", ["no", "one"]),
        "learning-rate": lambda: trial.suggest_float("learning-rate", 2e-4, 1e-2, log=True),
        "schedule": lambda: trial.suggest_categorical("schedule", ["constant", "cosine"]),
        "average": lambda: trial.suggest_categorical("average", ["none", "0.99", "0.998"]),
    }
    if mode == "langevin":
        searched["kernel"] = lambda: trial.suggest_categorical("kernel", ["mala", "hmc"])
    chosen = {name: str(suggest()) for name, suggest in searched.items() if name not in given}
    if mode == "langevin":
        # As many gradients of each update by either kernel.
        steps = "20" if chosen.get("kernel", given.get("kernel")) == "mala" else "4"
        chosen |= {"persistent": "true", "num-steps": steps, "step-size": "0.05"}
    return mode, None, {**chosen, **_of_mode(given, mode)}


def _of_mode(given: Mapping[str, str], mode: str) -> dict[str, str]:
    """Those of the given flags that the mode has; the rest belongs to other trials."""
    tables = ("data", "model", "training", mode)
    known = flags()
    return {name: text for name, text in given.items() if any(table in tables for table, _ in known[name])}
