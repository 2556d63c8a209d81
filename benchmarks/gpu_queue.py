"""What waits for a GPU, most important first: each a command with its own time limit.

A record is written as soon as it is there. What has one already, in the folder or in
`benchmarks/records`, is passed over, so the queue goes on where it was cut off.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rpjax.errors import InputError

BATCHES = "--batch-size 512 --records 8192"
RECORDS = Path(__file__).parent / "records"


class Entry(NamedTuple):
    """record: name of its file, without .json; seconds: after which it is ended."""

    record: str
    command: str
    seconds: int
    answers: str


ENTRIES = (
    Entry(
        "epoch_gpu",
        "epoch --members 1 16",
        180,
        "At most 1.0 s an epoch for one ResNet-8 on CIFAR-10's size, batch 128, and "
        "16 members at most 4 times that?",
    ),
    Entry(
        "steps_gpu",
        "steps",
        360,
        "Strategy I and II at most 1.05 times plain? Peak memory of each?",
    ),
    Entry(
        "bank_gpu",
        "epoch --members 64 --lists halves --epochs 5",
        240,
        "64 ResNet-8, each on its own 25,000 images: 100 epochs in 10 minutes is at "
        "most 6 s an epoch.",
    ),
    Entry(
        "roofline_gpu",
        "roofline",
        240,
        "The fraction of the roofline that ResNet-18 and WRN-28-10 reach in bfloat16.",
    ),
    Entry(
        "pytorch_gpu",
        "pytorch",
        300,
        "ResNet-8 in PyTorch: eager, compiled, CUDA graphs; float32 and bfloat16.",
    ),
    Entry(
        "pytorch_resnet18_gpu",
        "pytorch --model resnet18 --dtypes bfloat16",
        300,
        "The same for ResNet-18 in bfloat16, where arithmetic and not launches decide.",
    ),
    Entry(
        "dpsgd_wrn16_gpu",
        f"dpsgd --model wrn-16-4 {BATCHES} --dtype bfloat16 --libraries",
        420,
        "WRN-16-4: DP-SGD by the chosen engine at most 1.5 times the plain step, and "
        "2 times its memory?",
    ),
    Entry(
        "dpsgd_resnet18_gpu",
        f"dpsgd --model resnet18 {BATCHES} --dtype bfloat16 --libraries",
        420,
        "The same for ResNet-18.",
    ),
    Entry(
        "dpsgd_wrn16_peers_gpu",
        f"dpsgd --model wrn-16-4 {BATCHES} --dtype bfloat16 --engines auto",
        590,
        "At least 1.5 times jax-privacy's examples/s, and 3 times Opacus's best? Peers "
        "that are not installed are rows that say so.",
    ),
    Entry(
        "dpsgd_resnet18_peers_gpu",
        f"dpsgd --model resnet18 {BATCHES} --dtype bfloat16 --engines auto",
        590,
        "The same for ResNet-18.",
    ),
    Entry(
        "dpsgd_wrn16_float32_gpu",
        f"dpsgd --model wrn-16-4 {BATCHES} --engines auto bookkeeping",
        590,
        "WRN-16-4 in float32, the peers too.",
    ),
    Entry(
        "dpsgd_resnet18_float32_gpu",
        f"dpsgd --model resnet18 {BATCHES} --engines auto bookkeeping",
        590,
        "ResNet-18 in float32, the peers too.",
    ),
    Entry(
        "dpsgd_largest_gpu",
        f"dpsgd --model wrn-16-4 {BATCHES} --dtype bfloat16 --engines auto vmap "
        "--libraries jax-privacy --rounds 1 --largest",
        3600,
        "The largest batch that fits, of each; many processes, so not in one short "
        "call.",
    ),
    Entry(
        "ensembles_gpu",
        "ensembles",
        420,
        "Are vmap and xla right as what rpjax chooses on a GPU, for 1 to 64 members?",
    ),
    Entry(
        "generators_gpu",
        "generators",
        120,
        "What a Strategy I step costs by generator.",
    ),
    Entry(
        "compile_gpu",
        "compile",
        240,
        "Time to the first step, cold and with a warm cache.",
    ),
    Entry(
        "input_pipeline_gpu",
        "input_pipeline --workers 0 4 8 16 --records 1024 --model resnet18 "
        "--batch-size 128 --dtype bfloat16 --rounds 3",
        420,
        "How long ResNet-18's steps on 224 x 224 pixels wait for decoded JPEG files.",
    ),
    Entry(
        "members_gpu",
        "members --sizes 28 32 --batch 128",
        180,
        "Gradients of members and of single examples, by mapping and convolution.",
    ),
    Entry(
        "bank_100_epochs_gpu",
        "epoch --members 64 --lists halves --epochs 100",
        590,
        "The whole bank: 64 members, 100 epochs, in 10 minutes; last of the short "
        "ones, since it takes a call of its own.",
    ),
    Entry(
        "frameworks_gpu",
        "frameworks --data-dir data",
        43_200,
        "ResNet-18 on MNIST and CIFAR-10 to ε = 10 in five frameworks: who is slower, "
        "and is it compilation or the small net? Hours: MNIST and CIFAR-10 in `data`, "
        "and `--minutes 720`.",
    ),
)


@dataclass(frozen=True)
class Queue:
    """Measure everything that waits for a GPU, most important first."""

    out: Path = RECORDS
    """Folder for the records."""
    only: tuple[str, ...] = ()
    """Names of records, such as steps_gpu; left out: all."""
    minutes: float = 60.0
    """In all; what would not end in time is left for the next call."""
    again: bool = False
    """Also what has a record already."""


def work(options: Queue) -> int:
    """Carry out what is due; 1 if something failed, which stops nothing else."""
    began, failed = time.monotonic(), []
    for entry in due(options):
        left = 60 * options.minutes - (time.monotonic() - began)
        if left < 0.5 * entry.seconds:
            print(f"{entry.record}: left for the next call", flush=True)
            continue
        if not _done(entry, options.out, min(left, entry.seconds)):
            failed.append(entry.record)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def due(options: Queue) -> list[Entry]:
    """What is asked for and has no record yet, in the order of the queue."""
    known = {entry.record for entry in ENTRIES}
    for name in options.only:
        if name not in known:
            raise InputError(f"only names {name!r}; known: {', '.join(sorted(known))}")
    asked = [e for e in ENTRIES if not options.only or e.record in options.only]
    if options.again:
        return asked
    return [
        entry
        for entry in asked
        if not any(
            (folder / f"{entry.record}.json").exists()
            for folder in (options.out, RECORDS)
        )
    ]


def command(entry: Entry, out: Path | str) -> list[str]:
    """The words after `python`."""
    file = Path(out) / f"{entry.record}.json"
    return ["-m", "benchmarks", *entry.command.split(), "--out", str(file)]


def _done(entry: Entry, out: Path, seconds: float) -> bool:
    words = command(entry, out)
    print(f"\n== {entry.record}: python {' '.join(words)}", flush=True)
    # a session of its own, so that its worker processes end with it
    process = subprocess.Popen([sys.executable, *words], start_new_session=True)
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        print(f"{entry.record}: ended after {seconds:.0f} s", flush=True)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
