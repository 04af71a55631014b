"""Composite Gauss-Kronrod quadrature of one-dimensional densities, and tabulated CDFs."""

from .refinement import assess as assess
from .refinement import refine as refine
from .rule import DEGREE as DEGREE
from .rule import FROM_LEGENDRE as FROM_LEGENDRE
from .rule import GAUSS as GAUSS
from .rule import KRONROD as KRONROD
from .rule import NODES as NODES
from .rule import TO_LEGENDRE as TO_LEGENDRE
from .rule import Panels as Panels
from .rule import contract as contract
from .rule import evaluate as evaluate
from .rule import log_total as log_total
from .rule import panel_nodes as panel_nodes
from .rule import rounding as rounding
from .rule import safe_log as safe_log
from .rule import truncation as truncation
from .rule import with_ends as with_ends
from .table import Table as Table
