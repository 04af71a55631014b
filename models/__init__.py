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
from .denoisers import ConvDenoiser, Denoiser, MLPDenoiser
from .diffusion import Diffusion, sample_diffusion
from .encoders import AmortizedGuide, ConvEncoder, Encoder, MLPEncoder
from .generators import (
    ConvGenerator,
    Generator,
    KANGenerator,
    MLPGenerator,
    SequenceGenerator,
)
from .image_distance.classifier import ImageClassifier, train_classifier
from .image_distance.estimate import DistanceEstimate
from .image_distance.frechet import extrapolated_frechet_distance, frechet_distance
from .image_distance.kernel import kernel_distance
from .image_distance.precision_recall import PrecisionRecall, precision_recall
from .kaem import MixtureKAEM, ProductKAEM, SequenceKAEM
from .latents import interpolate, latent_effects, traverse
from .noise import LearntScale
from .padded_categorical import PaddedCategorical
from .wrapped_generators import Bfloat16Generator, Standardized

__all__ = [
    "CIFAR10",
    "DATASETS",
    "SVHN",
    "AmortizedGuide",
    "Bfloat16Generator",
    "CelebA",
    "ConvDenoiser",
    "ConvEncoder",
    "ConvGenerator",
    "DarcyFlow",
    "DataFileError",
    "Dataset",
    "DatasetSource",
    "Denoiser",
    "Diffusion",
    "Digits",
    "DigitsImages",
    "DistanceEstimate",
    "Encoder",
    "GaussianModel",
    "Generator",
    "IDXImages",
    "ImageClassifier",
    "ImageModel",
    "KANGenerator",
    "LatentEBM",
    "LearntScale",
    "LogNormalPermeability",
    "MLPDenoiser",
    "MLPEncoder",
    "MLPGenerator",
    "MixtureKAEM",
    "PaddedCategorical",
    "PennTreebank",
    "PrecisionRecall",
    "ProductKAEM",
    "SMSSpam",
    "SequenceGenerator",
    "SequenceKAEM",
    "Standardized",
    "ThresholdPermeability",
    "Vocabulary",
    "data_dir",
    "extrapolated_frechet_distance",
    "fetch_dataset",
    "frechet_distance",
    "gaussian_fields",
    "grey_images",
    "interpolate",
    "kernel_distance",
    "latent_effects",
    "load_dataset",
    "load_digits",
    "precision_recall",
    "resize_images",
    "sample_diffusion",
    "sample_langevin_prior",
    "solve_darcy",
    "split_dataset",
    "split_digits",
    "subset",
    "to_unit_interval",
    "train_classifier",
    "traverse",
]
