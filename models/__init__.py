"""KAEM models written with the plugin, their generators, and the data they are made for."""

from .baselines import ConvEncoder, Encoder, GaussianModel, LatentEBM, MLPEncoder, sample_langevin_prior
from .celeba import CelebA
from .cifar10 import CIFAR10
from .darcy_flow import DarcyFlow, LogNormalPermeability, ThresholdPermeability, gaussian_fields, solve_darcy
from .dataset import Dataset
from .datasets import DATASETS, DatasetSource, fetch_dataset, load_dataset
from .digits import Digits, DigitsImages, load_digits, split_digits
from .fetch import DataFileError, data_dir
from .generators import Bfloat16Generator, ConvGenerator, Generator, KANGenerator, MLPGenerator, SequenceGenerator
from .images import grey_images, resize_images, to_unit_interval
from .kaem import MixtureKAEM, ProductKAEM, SequenceKAEM
from .mnist import IDXImages
from .padded_categorical import PaddedCategorical
from .penn_treebank import PennTreebank
from .sms_spam import SMSSpam
from .splits import split_dataset, subset
from .svhn import SVHN
from .vocabulary import Vocabulary

__all__ = [
    "CIFAR10",
    "DATASETS",
    "SVHN",
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
    "ThresholdPermeability",
    "Vocabulary",
    "data_dir",
    "fetch_dataset",
    "gaussian_fields",
    "grey_images",
    "load_dataset",
    "load_digits",
    "resize_images",
    "sample_langevin_prior",
    "solve_darcy",
    "split_dataset",
    "split_digits",
    "subset",
    "to_unit_interval",
]
