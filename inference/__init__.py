"""What conditions, trains and weighs a model."""

from .diagnostics import Diagnosis, diagnose
from .draws import Draws
from .elliptical_slice import EllipticalSlice
from .hamiltonian import HMC, NUTS
from .history import History
from .importance_evidence import ImportanceLogEvidence, importance_log_evidence
from .importance_mle import ImportanceMLE
from .importance_sampling import ImportanceSampling
from .kernel import Kernel
from .langevin import MALA, ULA
from .parallel_tempering import ParallelTempering
from .pcnl import PCNL
from .resampling import residual_resampling, stratified_resampling, systematic_resampling
from .sampler import Sampler
from .sampling import sample_posterior
from .strategy import Strategy
from .tempered_smc import TemperedSMC
from .training import FitResult, NonFiniteLossError, fit

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "PCNL",
    "ULA",
    "Diagnosis",
    "Draws",
    "EllipticalSlice",
    "FitResult",
    "History",
    "ImportanceLogEvidence",
    "ImportanceMLE",
    "ImportanceSampling",
    "Kernel",
    "NonFiniteLossError",
    "ParallelTempering",
    "Sampler",
    "Strategy",
    "TemperedSMC",
    "diagnose",
    "fit",
    "importance_log_evidence",
    "residual_resampling",
    "sample_posterior",
    "stratified_resampling",
    "systematic_resampling",
]
