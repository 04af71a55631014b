"""What conditions, trains and weighs a model."""

from .adaptive_grid import AdaptiveGrid
from .annealed_importance import AnnealedImportanceSampling, LogEvidenceBounds, bound_log_evidence
from .compare import EvidenceComparison, compare_evidence
from .diagnostics import Diagnosis, diagnose
from .draws import Draws
from .elliptical_slice import EllipticalSlice
from .evidence import LogEvidence, log_evidence
from .hamiltonian import HMC, NUTS
from .history import History
from .importance_evidence import ImportanceLogEvidence, importance_log_evidence
from .importance_mle import ImportanceMLE, PathwiseImportanceMLE
from .importance_sampling import ImportanceSampling
from .kernel import Kernel
from .ladders import AdaptedLadder, GeometricLadder, GivenLadder, Ladder, PowerLadder
from .langevin import MALA, ULA
from .langevin_mle import LangevinMLE
from .nested_sampling import NestedSampling
from .parallel_tempering import ParallelTempering
from .pcnl import PCNL
from .resampling import residual_resampling, stratified_resampling, systematic_resampling
from .sampler import Sampler
from .sampling import sample_posterior
from .strategy import Strategy
from .tempered_smc import TemperedSMC
from .thermodynamic import Curve, Estimate, steppingstone, thermodynamic_curve, thermodynamic_integration
from .thermodynamic_mle import CyclicPower, ThermodynamicMLE
from .training import FitResult, NonFiniteLossError, TrainingState, fit
from .variational_mle import VariationalMLE

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "PCNL",
    "ULA",
    "AdaptedLadder",
    "AdaptiveGrid",
    "AnnealedImportanceSampling",
    "Curve",
    "CyclicPower",
    "Diagnosis",
    "Draws",
    "EllipticalSlice",
    "Estimate",
    "EvidenceComparison",
    "FitResult",
    "GeometricLadder",
    "GivenLadder",
    "History",
    "ImportanceLogEvidence",
    "ImportanceMLE",
    "ImportanceSampling",
    "Kernel",
    "Ladder",
    "LangevinMLE",
    "LogEvidence",
    "LogEvidenceBounds",
    "NestedSampling",
    "NonFiniteLossError",
    "ParallelTempering",
    "PathwiseImportanceMLE",
    "PowerLadder",
    "Sampler",
    "Strategy",
    "TemperedSMC",
    "ThermodynamicMLE",
    "TrainingState",
    "VariationalMLE",
    "bound_log_evidence",
    "compare_evidence",
    "diagnose",
    "fit",
    "importance_log_evidence",
    "log_evidence",
    "residual_resampling",
    "sample_posterior",
    "steppingstone",
    "stratified_resampling",
    "systematic_resampling",
    "thermodynamic_curve",
    "thermodynamic_integration",
]
