"""What conditions, trains and weighs a model."""

from .history import History
from .importance_evidence import ImportanceLogEvidence, importance_log_evidence
from .importance_mle import ImportanceMLE
from .resampling import residual_resampling, stratified_resampling, systematic_resampling
from .strategy import Strategy
from .training import FitResult, NonFiniteLossError, fit

__all__ = [
    "FitResult",
    "History",
    "ImportanceLogEvidence",
    "ImportanceMLE",
    "NonFiniteLossError",
    "Strategy",
    "fit",
    "importance_log_evidence",
    "residual_resampling",
    "stratified_resampling",
    "systematic_resampling",
]
