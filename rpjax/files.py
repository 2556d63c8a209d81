"""Files that are whole or not there: written under another name, then renamed."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_json(path: Path, value: Any) -> None:
    """Write JSON all at once; NaN and infinity are refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    # a list of numbers takes one line
    text = re.sub(r"\[[-+\d.e,\s]+\]", lambda m: " ".join(m[0].split()), text)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file all at once."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays under their names, compressed (.npz), all at once."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)
