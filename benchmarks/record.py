"""What every benchmark writes beside its numbers."""

import datetime
import subprocess
import sys

from rpjax.experiments.environment import device, versions


def record(name, settings, rows):
    """A result with the device, versions, commit, command and date."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    words = [f"benchmarks.{name}", *sys.argv[1:]]
    return {
        "schema": "rpjax.benchmark/1",
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": "python -m " + " ".join(words),
        "commit": commit or None,
        "device": device(),
        "versions": versions(),
        "seed": 0,
        "settings": settings,
        "rows": rows,
    }
