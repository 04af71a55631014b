"""Load and preprocess the data of a run."""

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np

from ...models import (
    DATASETS,
    CelebA,
    DarcyFlow,
    Dataset,
    DatasetSource,
    LogNormalPermeability,
    PennTreebank,
    SMSSpam,
    ThresholdPermeability,
    data_dir,
    grey_images,
    load_dataset,
    resize_images,
    subset,
)
from ..errors import CommandError
from ..settings.config import Config
from ..settings.tables import DataSettings


def load_data(config: Config, split: str, progress_bar: bool) -> Dataset:
    """Read the split `train` or `test`, preprocessed as the settings say.

    Raises:
        CommandError: a file is missing, there are fewer data than asked for, or a setting has no meaning for them.
        DataFileError: a file is damaged.
    """
    try:
        loaded = load_dataset(_source(config), split, progress_bar=progress_bar)
    except FileNotFoundError as error:
        path = str(error).split(" is missing")[0]
        raise CommandError(
            f"{path} is missing: download it by `kaem data {config.dataset}`, put the official file there, or set "
            "KAEM_DATA_DIR to the folder that holds the data sets' folders."
        ) from error
    dataset = _preprocess(config, loaded, split)
    if config.data.stream and split == "train" and not isinstance(dataset.values, np.memmap):
        return dataclasses.replace(dataset, values=_write_and_map(dataset.values, data_dir() / "streamed"))
    return dataset


def _preprocess(config: Config, dataset: Dataset, split: str) -> Dataset:
    settings = config.data
    if dataset.vocabulary is None and not is_field(config):
        dataset = _preprocess_images(dataset, settings)
    elif settings.grey or (dataset.vocabulary is not None and settings.size is not None):
        raise CommandError(f"size and grey concern images, and {config.dataset} has none: leave them out.")
    wanted = {"train": settings.num_train, "test": settings.num_test}[split]
    if wanted is None:
        return dataset
    if wanted > len(dataset):
        raise CommandError(f"--num-{split} is {wanted}, but {config.dataset} has {len(dataset)} {split} data.")
    return subset(dataset, wanted, config.seed)


def is_field(config: Config) -> bool:
    """Whether data are physical fields, whose values have a unit and no bounds."""
    return isinstance(DATASETS[config.dataset], DarcyFlow)


def _source(config: Config) -> DatasetSource:
    settings, source = config.data, DATASETS[config.dataset]
    if isinstance(source, SMSSpam | PennTreebank):
        return dataclasses.replace(source, length=settings.length, vocabulary_size=settings.vocabulary_size)
    if isinstance(source, DarcyFlow):
        permeability = {"threshold": ThresholdPermeability(), "lognormal": LogNormalPermeability()}
        given = {"resolution": settings.size, "num_train": settings.num_train, "num_test": settings.num_test}
        given = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(source, permeability=permeability[settings.permeability], **given)
    if isinstance(source, CelebA) and settings.size is not None:
        return dataclasses.replace(source, size=settings.size)
    return source


def _preprocess_images(dataset: Dataset, settings: DataSettings) -> Dataset:
    images = dataset.values
    if settings.size is not None:
        images = resize_images(images, (settings.size, settings.size))
    if settings.grey:
        images = grey_images(images)
    return dataclasses.replace(dataset, values=images)


def _write_and_map(values: np.ndarray, folder: Path) -> np.ndarray:
    """The same values as a memory map of a file that is named by the hash of its content."""
    digest = hashlib.sha256(repr((values.shape, values.dtype.str)).encode())
    digest.update(np.ascontiguousarray(values).data)
    path = folder / f"{digest.hexdigest()}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                np.save(file, values)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")
