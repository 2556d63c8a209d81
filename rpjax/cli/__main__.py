"""``python -m rpjax.cli``."""

import sys

from rpjax.cli import program

sys.exit(program())
