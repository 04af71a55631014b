"""`kaem evaluate --distance`: how far generated images are from held-out ones, in the features of a classifier."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ...models import (
    DistanceEstimate,
    ImageClassifier,
    extrapolated_frechet_distance,
    frechet_distance,
    kernel_distance,
    precision_recall,
    to_unit_interval,
    train_classifier,
)
from ...progress import Progress
from ...saving import load_params, save_params
from ..building.data import is_field, load_data
from ..errors import CommandError
from ..messages import print_result, print_warning
from ..storage.saved_run import SavedRun
from .sample import draw_images

CLASSIFIER = "classifier.npz"
# A sample is sure where one class has more than this probability.
_SURE = 0.9
# Images for each feature below which an extrapolation is not worth much.
_FEW = 4
_LARGEST_NUM_GROUPS, _LEAST_OF_A_GROUP = 20, 4


class Distances(NamedTuple):
    """Generated images beside held-out ones, and training images beside held-out ones, which is what can be reached.

    Attributes:
        frechet: extrapolated to infinitely many images.
        plain_frechet: of the images that there are, too large on average.
        kernel: unbiased.
        precision: share of the generated images near real ones.
        recall: share of the real images near generated ones.
        sure: share of images that the classifier gives a probability over 0.9.
        rarest: share of the class that it sees least often.
    """

    frechet: DistanceEstimate
    plain_frechet: float
    kernel: DistanceEstimate
    precision: DistanceEstimate
    recall: DistanceEstimate
    sure: float
    rarest: float


def evaluate_distance(run: SavedRun, key: jax.Array, folder: Path) -> dict[str, Distances]:
    """Write `distances.csv`, `classes.csv` and `distances.txt`, and print the latter.

    As many means of the likelihood are generated as there are held-out images, so that precision and recall compare.

    Args:
        run: to evaluate.
        key: PRNG key.
        folder: to write into.

    Raises:
        CommandError: the data have no classes, or there are too few of them.
    """
    if run.data.labels is None or run.data.vocabulary is not None or is_field(run.config):
        raise CommandError(
            f"--distance needs images with classes, and {run.config.dataset} has none: in Python, hand features of a "
            "network of your own to `kaem_ppl.models.extrapolated_frechet_distance`."
        )
    least = 4 * _LEAST_OF_A_GROUP
    if len(run.data) < least:
        raise CommandError(f"--distance needs at least {least} held-out images, and there are {len(run.data)}.")
    train = load_data(run.config, "train", False)
    classifier = load_classifier(run)
    Progress.innermost().begin("drawing images and measuring distances")
    number = len(run.data)
    real = np.asarray(to_unit_interval(run.data.values))
    sets = {
        "generated": np.clip(draw_images(run, key, number), 0, 1),
        "training": np.asarray(to_unit_interval(train.values[:number])),
    }
    reference = classifier.features(real)
    if number < _FEW * reference.shape[1]:
        print_warning(f"{number} held-out images are few for {reference.shape[1]} features: errors are large.")
    found = {name: _compare(classifier, images, reference) for name, images in sets.items()}
    shares = {name: class_shares(classifier, images) for name, images in {**sets, "held out": real}.items()}
    text = "\n".join(_describe(found))
    print_result(text)
    (folder / "distances.txt").write_text(text + "\n", encoding="utf-8")
    (folder / "distances.csv").write_text(_table(found), encoding="utf-8")
    lines = ["images," + ",".join(f"class_{index}" for index in range(classifier.num_classes))]
    lines += [f"{name}," + ",".join(f"{share:.6g}" for share in row) for name, row in shares.items()]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def load_classifier(run: SavedRun) -> ImageClassifier:
    """The classifier in the run's folder, or a new one, trained on the run's training data and kept there.

    Raises:
        CommandError: the file in the run's folder is something else.
    """
    path = run.folder.path / CLASSIFIER
    if path.is_file():
        params = load_params(path)
        if set(params) != {"first", "second", "hidden", "logits", "scale"}:
            raise CommandError(f"{path} holds something else than a classifier: remove it, and one is trained.")
        return ImageClassifier(params)
    Progress.innermost().begin("training a classifier, once for this run")
    train = load_data(run.config, "train", False)
    assert train.labels is not None, "checked by the caller"
    classifier = train_classifier(0, train.values, np.asarray(train.labels, np.int32), batch_size=min(100, len(train)))
    try:
        save_params(path, dict(classifier.params))
    except OSError as error:
        print_warning(f"{path} can't be written: {error.strerror}. The classifier will be trained again next time.")
    return classifier


def class_shares(classifier: ImageClassifier, images: np.ndarray) -> np.ndarray:
    """The share of images that the classifier gives each class, shape (num_classes,)."""
    guessed = classifier.probabilities(images).argmax(-1)
    return np.bincount(guessed, minlength=classifier.num_classes) / len(images)


def _compare(classifier: ImageClassifier, images: np.ndarray, real: np.ndarray) -> Distances:
    features = classifier.features(images)
    groups = min(_LARGEST_NUM_GROUPS, min(len(features), len(real)) // _LEAST_OF_A_GROUP)
    near = precision_recall(real, features)
    return Distances(
        extrapolated_frechet_distance(features, real, groups),
        frechet_distance(features, real),
        kernel_distance(features, real, groups),
        near.precision,
        near.recall,
        float((classifier.probabilities(images).max(-1) > _SURE).mean()),
        float(class_shares(classifier, images).min()),
    )


def _describe(found: dict[str, Distances]) -> list[str]:
    ours, floor = found["generated"], found["training"]
    return [
        f"Frechet distance, extrapolated: {ours.frechet} (training images: {floor.frechet})",
        f"kernel distance: {ours.kernel} (training images: {floor.kernel})",
        f"precision {ours.precision.value:.1%}, recall {ours.recall.value:.1%} (training images: "
        f"{floor.precision.value:.1%}, {floor.recall.value:.1%})",
        f"images the classifier is over {_SURE:.0%} sure of: {ours.sure:.1%} (training images: {floor.sure:.1%}); share of "
        f"the rarest class: {ours.rarest:.1%}",
    ]


def _table(found: dict[str, Distances]) -> str:
    lines = ["images,measure,value,std_error"]
    for name, distances in found.items():
        for measure, x in distances._asdict().items():
            value, error = x if isinstance(x, DistanceEstimate) else (x, "")
            lines.append(f"{name},{measure},{value},{error}")
    return "\n".join(lines) + "\n"
