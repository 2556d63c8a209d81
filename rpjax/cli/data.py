"""``rpjax data``: look at image files, prepare them, or make some up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from rpjax.data.generating import generate_folder
from rpjax.data.preparing import IDC_FOLDER, prepare_folder, prepare_idc
from rpjax.data.sources import surveyed
from rpjax.data.splits import SPLIT_SEED
from rpjax.data.survey import Broken
from rpjax.errors import InputError
from rpjax.training import counter

Spec = tyro.conf.Positional[str]


@dataclass(frozen=True)
class Check:
    """Decode every image, and list those that cannot be; fails if there are any."""

    images: Spec
    """folder:FOLDER, tfds:NAME or cifar10."""
    data_dir: Path | None = None
    """Folder that holds prepared TFDS data sets."""
    workers: int = 0
    """Processes that decode; 0: threads of this one."""


@dataclass(frozen=True)
class Prepare:
    """Write image files into a TFDS set that `--data tfds:NAME` reads.

    No TensorFlow is needed, and the encoded images are copied as they are.
    """

    images: Spec
    """folder:FOLDER with class folders, or idc:FOLDER with IDC_regular_ps50_idx5."""
    out: Path
    """Folder for prepared sets: the --data-dir of whoever reads it."""
    name: str | None = None
    """What to call the set; left out: the folder's name, or idc."""
    broken: Broken = "refuse"
    """skip: leave out images that cannot be decoded; refuse: name the first."""
    test_fraction: float = 0.2
    """Of idc: the share of the patients that are test."""
    seed: int = SPLIT_SEED
    """Of idc: which patients those are."""
    workers: int = 0
    """Processes that decode; 0: threads of this one."""


@dataclass(frozen=True)
class Generate:
    """Make up a folder of JPEG files in ImageNet's layout, to try a training on."""

    folder: tyro.conf.Positional[Path]
    """A new one, for train/CLASS/*.JPEG and val/CLASS/*.JPEG."""
    classes: int = 4
    """How many; each has its colour."""
    train: int = 64
    """Training images."""
    val: int = 16
    """Test images."""
    size: int = 48
    """Pixels of an image's shorter side."""
    seed: int = 0
    """Of the noise in them."""


@dataclass(frozen=True)
class Data:
    """Look at image files (check), prepare them (prepare), make some up (generate)."""

    action: (
        Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[Generate, tyro.conf.subcommand("generate")]
    )


def run(options: Data, console: Console) -> None:
    """Carry out the action."""
    action = options.action
    if isinstance(action, Check):
        _check(action, console)
    elif isinstance(action, Prepare):
        _prepare(action, console)
    else:
        _generate(action, console)


def _check(options: Check, console: Console) -> None:
    with counter("images", console) as tell:
        source, found = surveyed(
            options.images, options.data_dir, workers=options.workers, tell=tell
        )
    for row in found.broken:
        line = f"{source.name(int(row))}: {found.reasons[row]}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    bad, total = len(found.broken), len(source)
    if bad:
        raise InputError(
            f"{bad} of {total} images cannot be used; replace or remove them, or train "
            "with --broken skip"
        )
    console.print(f"all {total} images can be used", highlight=False)


def _prepare(options: Prepare, console: Console) -> None:
    kind, colon, folder = options.images.partition(":")
    if kind not in ("folder", "idc") or not colon:
        raise InputError(
            f"images is {options.images!r}; it is folder:FOLDER with class folders, or "
            f"idc:FOLDER with {IDC_FOLDER}"
        )
    root = Path(folder).expanduser()
    with counter("images", console) as tell:
        if kind == "idc":
            written = prepare_idc(
                root,
                options.out,
                options.name or "idc",
                test_fraction=options.test_fraction,
                seed=options.seed,
                broken=options.broken,
                workers=options.workers,
                tell=tell,
            )
        else:
            written = prepare_folder(
                root,
                options.out,
                options.name or root.resolve().name.lower(),
                broken=options.broken,
                workers=options.workers,
                tell=tell,
            )
    name = written.parent.name
    console.print(f"written: {written}", highlight=False, soft_wrap=True)
    console.print(
        f"read it by: --data tfds:{name} --data-dir {options.out}",
        highlight=False,
        soft_wrap=True,
    )


def _generate(options: Generate, console: Console) -> None:
    written = generate_folder(
        options.folder,
        classes=options.classes,
        train=options.train,
        val=options.val,
        size=options.size,
        seed=options.seed,
    )
    for line in (f"written: {written}", f"read it by: --data folder:{written}"):
        console.print(line, highlight=False, soft_wrap=True)
