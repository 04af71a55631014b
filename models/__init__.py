"""KAEM models, generators, encoders, baselines, and data sets."""

from .baselines import GaussianModel, LatentEBM, sample_langevin_prior
from .data.celeba import CelebA
from .data.cifar10 import CIFAR10
from .data.darcy_flow import DarcyFlow, LogNormalPermeability, ThresholdPermeability, gaussian_fields, solve_darcy
from .data.dataset import Dataset
from .data.datasets import DATASETS, DatasetSource, fetch_dataset, load_dataset
from .data.digits import Digits, DigitsImages, load_digits, split_digits
from .data.fetch import DataFileError, data_dir
from .data.images import ImageModel, grey_images, resize_images, to_unit_interval
from .data.mnist import IDXImages
from .data.penn_treebank import PennTreebank
from .data.sms_spam import SMSSpam
from .data.splits import split_dataset, subset
from .data.svhn import SVHN
from .data.vocabulary import Vocabulary
from .encoders import AmortizedGuide, ConvEncoder, Encoder, MLPEncoder
from .generators import (
    ConvGenerator,
    Generator,
    KANGenerator,
    MLPGenerator,
    SequenceGenerator,
)
from .kaem import MixtureKAEM, ProductKAEM, SequenceKAEM
from .latents import interpolate, latent_effects, traverse
from .padded_categorical import PaddedCategorical
from .wrapped_generators import Bfloat16Generator, Standardized

__all__ = [
    "CIFAR10",
    "DATASETS",
    "SVHN",
    "AmortizedGuide",
    "Bfloat16Generator",
    "CelebA",
    "ConvEncoder",
    "ConvGenerator",
    "DarcyFlow",
    "DataFileError",
    "Dataset",
    "DatasetSource",
    "Digits",
    "DigitsImages",
    "Encoder",
    "GaussianModel",
    "Generator",
    "IDXImages",
    "ImageModel",
    "KANGenerator",
    "LatentEBM",
    "LogNormalPermeability",
    "MLPEncoder",
    "MLPGenerator",
    "MixtureKAEM",
    "PaddedCategorical",
    "PennTreebank",
    "ProductKAEM",
    "SMSSpam",
    "SequenceGenerator",
    "SequenceKAEM",
    "Standardized",
    "ThresholdPermeability",
    "Vocabulary",
    "data_dir",
    "fetch_dataset",
    "gaussian_fields",
    "grey_images",
    "interpolate",
    "latent_effects",
    "load_dataset",
    "load_digits",
    "resize_images",
    "sample_langevin_prior",
    "solve_darcy",
    "split_dataset",
    "split_digits",
    "subset",
    "to_unit_interval",
    "traverse",
]
