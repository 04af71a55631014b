"""Both tails and quantiles of any univariate continuous reference, to full precision.

NumPyro's distributions state the lower tail only (`cdf`, `icdf`), some to few digits, some not at all. Here masses are
logarithms, so that the range of floats does not matter, and there is one on either side, so that a small tail keeps its
relative digits: closed forms where the literature has them, quadrature of `log_prob` where it has not.
"""

from .log_masses import complete, log_remainder
from .support import check_reference, fault_of, is_rough_at_ends, support_bounds
from .tail_integral import tail_expectation
from .tails import (
    Tails,
    log_lower_tail,
    log_masses,
    log_outside,
    log_upper_tail,
    lower_quantile,
    quantile,
    tails_of,
    upper_quantile,
)

__all__ = [
    "Tails",
    "check_reference",
    "complete",
    "fault_of",
    "is_rough_at_ends",
    "log_lower_tail",
    "log_masses",
    "log_outside",
    "log_remainder",
    "log_upper_tail",
    "lower_quantile",
    "quantile",
    "support_bounds",
    "tail_expectation",
    "tails_of",
    "upper_quantile",
]
