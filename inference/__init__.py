"""Posterior sampling, log-evidence and training for NumPyro models."""

from .diagnostics.anomaly import anomaly_p_values
from .diagnostics.calibration import Calibration, simulation_based_calibration
from .diagnostics.diagnose import Diagnosis, diagnose
from .evidence.annealed_importance import AnnealedImportanceSampling
from .evidence.bridge_sampling import BridgeSampling
from .evidence.compare import EvidenceComparison, compare_evidence
from .evidence.cross_check import CrossCheck, cross_check
from .evidence.evidence_bounds import LogEvidenceBounds, bound_log_evidence
from .evidence.log_evidence import LogEvidence, log_evidence
from .evidence.nested_sampling import NestedSampling
from .evidence.thermodynamic import Curve, Estimate, steppingstone, thermodynamic_curve, thermodynamic_integration
from .kernels.elliptical_slice import EllipticalSlice
from .kernels.hamiltonian import HMC, NUTS
from .kernels.kernel import Kernel
from .kernels.langevin import MALA, ULA
from .kernels.pcnl import PCNL
from .sampling.blocks import Blocks
from .sampling.chains_state import ChainsState
from .sampling.draws import Draws
from .sampling.importance.importance_sampling import ImportanceSampling
from .sampling.importance.proposals import GuideProposal, Proposal, StudentProposal
from .sampling.run import Report
from .sampling.sample_posterior import sample_posterior
from .sampling.sampler import Sampler
from .sampling.stopping import Until
from .tempering.ladders import AdaptedLadder, GeometricLadder, GivenLadder, Ladder, PowerLadder
from .tempering.parallel_tempering import ParallelTempering
from .tempering.tempered_smc import TemperedSMC
from .training.adaptive_grid import AdaptiveGrid
from .training.fit import fit
from .training.history import History
from .training.state import FitResult, NonFiniteLossError, TrainingState
from .training.strategies.contrastive_mle import ContrastiveMLE
from .training.strategies.importance_mle import ImportanceMLE, PathwiseImportanceMLE
from .training.strategies.langevin_mle import LangevinMLE
from .training.strategies.resampling import residual_resampling, stratified_resampling, systematic_resampling
from .training.strategies.strategy import Strategy
from .training.strategies.thermodynamic_mle import CyclicPower, ThermodynamicMLE
from .training.strategies.variational_mle import VariationalMLE

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "PCNL",
    "ULA",
    "AdaptedLadder",
    "AdaptiveGrid",
    "AnnealedImportanceSampling",
    "Blocks",
    "BridgeSampling",
    "Calibration",
    "ChainsState",
    "ContrastiveMLE",
    "CrossCheck",
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
    "GuideProposal",
    "History",
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
    "Proposal",
    "Report",
    "Sampler",
    "Strategy",
    "StudentProposal",
    "TemperedSMC",
    "ThermodynamicMLE",
    "TrainingState",
    "Until",
    "VariationalMLE",
    "anomaly_p_values",
    "bound_log_evidence",
    "compare_evidence",
    "cross_check",
    "diagnose",
    "fit",
    "log_evidence",
    "residual_resampling",
    "sample_posterior",
    "simulation_based_calibration",
    "steppingstone",
    "stratified_resampling",
    "systematic_resampling",
    "thermodynamic_curve",
    "thermodynamic_integration",
]
