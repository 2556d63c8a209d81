"""``python -m rpjax.cli``."""

import sys

from rpjax.cli import main

sys.exit(main())
