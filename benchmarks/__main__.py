"""python -m benchmarks: list, run, draw, and work through what waits for a GPU."""

import sys

from benchmarks.commands import main

if __name__ == "__main__":
    sys.exit(main())
