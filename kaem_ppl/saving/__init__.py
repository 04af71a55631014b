"""Files: parameters and pytrees of arrays, written atomically and without pickles, and locks on folders."""

from .params import load_params as load_params
from .params import save_params as save_params
