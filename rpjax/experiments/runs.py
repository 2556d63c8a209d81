"""The folder of an experiment: written so that nothing is ever half there.

``config.yaml`` names the experiment; ``counts.json`` holds class counts that were
released for its loss, if any; ``methods/NAME.json`` and ``.npz`` hold each
finished part; ``checkpoints/`` what a resumed one goes on from. Once everything is
done, ``guarantee.json`` holds what is proved, and ``results.json`` all of it. Each file
is written under another name and then renamed. Files that rpjax did not write stay
where they are, whatever is replaced.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rpjax import distributed
from rpjax.errors import InputError
from rpjax.experiments.audit_config import AuditExperiment
from rpjax.experiments.config import METHODS, ExperimentConfig
from rpjax.experiments.values import (
    SPEED_ALONE,
    as_dict,
    differences,
    from_yaml,
    to_yaml,
)
from rpjax.files import write_arrays, write_json, write_text
from rpjax.privacy.documents import document

BEGINNING = "# the configuration of an rpjax "
REPORT = (
    *("report.html", "report.md"),
    *(
        f"figures/{name}.*"
        for name in ("tradeoff", "roc", "by_class", "training", "cost")
    ),
)
PARTS = tuple(
    f"{folder}/{method}{kind}"
    for method in METHODS
    for folder, kind in (
        *(("methods", ".json"), ("methods", ".npz")),
        *(("checkpoints", ""), ("checkpoints", "-*-shadows")),
    )
)


class RunFolder:
    """The files of one experiment."""

    what = "run"
    default: Any = ExperimentConfig()
    results = "results.json"
    written: tuple[str, ...] = (
        *("results.json", "guarantee.json", "counts.json", *REPORT, *PARTS),
    )

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def start(
        cls,
        path: Path,
        config: Any,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Any:
        """A folder for `config`: new, emptied, or the same experiment's again."""
        folder = cls(path)
        folder.check(resume=resume, overwrite=overwrite)
        if resume and (path / "config.yaml").exists():
            changed = differences(as_dict(folder.config()), as_dict(config))
            changed = [name for name in changed if name not in SPEED_ALONE]
            if changed:
                raise InputError(
                    f"{changed[0]} differs from the {cls.what} in {path}; resume with "
                    "the same configuration, or name a new folder"
                )
        if overwrite:
            folder._clear()
        path.mkdir(parents=True, exist_ok=True)
        folder.configure(config)
        return folder

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that holds something else, before anything is touched."""
        if resume and overwrite:
            raise InputError("resume and overwrite are both on; choose one")
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"out is {self.path}, which is a file; name a folder")
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not self.holds_one():
            raise InputError(
                f"out is {self.path}, which holds files of something else; "
                "name a new folder"
            )
        if not (resume or overwrite):
            raise InputError(
                f"out is {self.path}, which holds another {self.what}; go on with "
                "--resume, replace it with --overwrite, or name a new folder"
            )

    def holds_one(self) -> bool:
        """Whether an experiment of this kind has been begun here."""
        file = self.path / "config.yaml"
        return file.is_file() and file.read_bytes().startswith(self._mark())

    def config(self) -> Any:
        """The configuration of what is in this folder, as `default` is one."""
        file = self.path / "config.yaml"
        if not file.exists():
            raise InputError(f"{self.path} holds no {self.what} (no config.yaml)")
        return read_config(file, self.default)

    def configure(self, config: Any) -> None:
        """Name the experiment that is in this folder."""
        write_text(self.path / "config.yaml", self._mark().decode() + to_yaml(config))

    def _mark(self) -> bytes:
        return f"{BEGINNING}{self.what}\n".encode()

    def counts(self) -> dict[str, Any] | None:
        """The class counts that this experiment has released, if it has."""
        file = self.path / "counts.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def keep_counts(self, counts: dict[str, Any]) -> None:
        """Keep released class counts, which must not be released once more."""
        write_json(self.path / "counts.json", counts)

    def checkpoints(self, name: str) -> Path:
        """Where the training `name` keeps its checkpoints."""
        return self.path / "checkpoints" / name

    def finished(self, name: str) -> dict[str, Any] | None:
        """The part `name`, if it is there already."""
        file = self.path / "methods" / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def concluded(self) -> dict[str, Any]:
        """What `conclude` wrote: the results of all of it."""
        file = self.path / self.results
        if not file.is_file():
            raise InputError(
                f"{self.path} holds no {self.results}; finish the {self.what} with "
                "--resume"
            )
        results: dict[str, Any] = json.loads(file.read_text())
        return results

    def finish(
        self, name: str, part: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> None:
        """Keep the part `name` and the arrays that its figures come from."""
        distributed.together(lambda: self._keep(name, part, arrays), only_first=True)

    def conclude(self, results: dict[str, Any]) -> None:
        """Write guarantee.json and the results: the experiment is through."""
        distributed.together(lambda: self._conclude(results), only_first=True)

    def _conclude(self, results: dict[str, Any]) -> None:
        proved = [(m["name"], m["label"], m["guarantee"]) for m in results["methods"]]
        write_json(self.path / "guarantee.json", document(proved))
        write_json(self.path / self.results, results)

    def _keep(
        self, name: str, part: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> None:
        (self.path / "methods").mkdir(exist_ok=True)
        write_arrays(self.path / "methods" / f"{name}.npz", arrays)
        write_json(self.path / "methods" / f"{name}.json", part)

    def _clear(self) -> None:
        """Remove what a run leaves, by name; config.yaml stays, to be replaced."""
        for pattern in self.written:
            for target in self.path.glob(pattern):
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink()


class AuditFolder(RunFolder):
    """The files of one audit; a folder in ``shadows/`` for each method and set."""

    what = "audit"
    default: Any = AuditExperiment()
    results = "attacks.json"
    written = (
        *("attacks.json", "attacks.npz", "guarantee.json", "most_exposed.csv"),
        *("attacks.html", "attacks.md", "figures/attacks_*.*"),
        *(f"methods/{name}{kind}" for name in METHODS for kind in (".json", ".npz")),
        *(f"shadows/{name}" for name in METHODS),
    )

    def shadows(self, method: str, name: str) -> Path:
        """Where the models of one method and set are kept."""
        return self.path / "shadows" / method / name


def read_config(file: Path, base: Any = None) -> Any:
    """The configuration in a YAML file; what it leaves out is as in `base`."""
    if not file.is_file():
        raise InputError(f"config is {file}; there is no such file")
    try:
        return from_yaml(file.read_text("utf-8"), base)
    except UnicodeDecodeError as error:
        raise InputError(f"config is {file}; it is not a text file") from error
