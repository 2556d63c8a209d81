"""Where shadow models' answers are kept: in memory, or a file for each model."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rpjax.errors import InputError
from rpjax.files import write_arrays, write_json
from rpjax.locks import Lock

SCHEMA = "rpjax.shadow_models/1"

Kept = dict[str, np.ndarray]


class Memory:
    """Keeps what models answered until the end of the call."""

    def __init__(self) -> None:
        self.models: dict[int, Kept] = {}

    def found(self, number: int) -> Kept | None:
        """What is kept of a model, if it is done."""
        return self.models.get(number)

    def keep(self, number: int, arrays: Kept) -> None:
        """Keep a model's arrays."""
        self.models[number] = arrays

    def agree(self, questions: dict[str, str]) -> None:
        """Nothing was asked before."""

    def checkpoints(self, numbers: Sequence[int]) -> Path | None:
        """Nowhere."""
        return None

    def done(self) -> None:
        """Nothing is left over."""


class Folder:
    """A file for each model, and a manifest of what they are models of."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.facts: dict[str, Any] = json.loads(json.dumps(facts, default=str))

    def __enter__(self) -> "Folder":
        self.lock = Lock(
            self.path / ".lock", f"the folder of shadow models {self.path}"
        )
        (self.path / "models").mkdir(exist_ok=True)
        self.manifest: dict[str, Any] = {"schema": SCHEMA, "facts": self.facts}
        self.manifest["questions"] = {}
        file = self.path / "shadow_models.json"
        if file.exists():
            self.manifest = json.loads(file.read_text("utf-8"))
            if self.manifest.get("schema") != SCHEMA:
                raise self._other("schema", SCHEMA, self.manifest.get("schema"))
            for field, value in self.facts.items():
                before = self.manifest["facts"].get(field)
                if before != value:
                    raise self._other(field, value, before)
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def _other(self, field: str, now: Any, before: Any) -> InputError:
        self.lock.release()
        return InputError(
            f"{field} is {now!r}; the models in {self.path} were made with {before!r}: "
            "keep it, or name another folder"
        )

    def agree(self, questions: dict[str, str]) -> None:
        """Note what is asked under which name; a name stands for one question."""
        for name, asked in questions.items():
            before = self.manifest["questions"].setdefault(name, asked)
            if before != asked:
                raise self._other(f"questions[{name!r}]", asked, before)
        write_json(self.path / "shadow_models.json", self.manifest)

    def found(self, number: int) -> Kept | None:
        """What is kept of a model, if it is done."""
        file = self.path / "models" / f"{number:05d}.npz"
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)

    def keep(self, number: int, arrays: Kept) -> None:
        """Keep a model's arrays."""
        write_arrays(self.path / "models" / f"{number:05d}.npz", arrays)

    def checkpoints(self, numbers: Sequence[int]) -> Path:
        """Where these models, trained side by side, keep their checkpoints."""
        words = " ".join(map(str, numbers)).encode()
        digest = hashlib.blake2b(words, digest_size=4).hexdigest()
        return self.path / "training" / f"{numbers[0]:05d}-{digest}"

    def done(self) -> None:
        """Remove what trainings left to go on from."""
        shutil.rmtree(self.path / "training", ignore_errors=True)
