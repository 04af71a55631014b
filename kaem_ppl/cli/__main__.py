"""`python -m kaem_ppl.cli`."""

import sys

from .command_line import main

sys.exit(main())
