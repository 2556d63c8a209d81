"""Several processes as one program: who takes part, and what all must agree on.

>>> import rpjax
>>> rpjax.distributed.initialize().count     # one process: nothing is done
1

Launchers say by environment variables who a process is; `initialize` reads them. Then
every process runs the same program on its own devices, process 0 alone writes files and
prints, and what only one process knows is handed on by `shared` and `together`.
"""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

import jax
import numpy as np

from rpjax.errors import FailedElsewhere, InputError

SECONDS = 300.0
NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SWITCH, LIMIT = "RPJAX_DISTRIBUTED", "RPJAX_DISTRIBUTED_SECONDS"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """Who takes part. index: this process; found: how that was known."""

    index: int
    count: int
    found: str

    def __str__(self) -> str:
        devices = f"{jax.device_count()} {jax.default_backend()} devices"
        return f"{self.count} processes with {devices} ({self.found})"


@dataclass(frozen=True)
class Place:
    """What is known of a process before it has met the others; None is not known."""

    address: str | None
    count: int | None
    index: int | None
    found: str


def initialize(
    mode: Literal["auto", "off"] = "auto",
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout_seconds: float | None = None,
) -> Processes:
    """Join the other processes, if there are any; to be called before any device.

    Nothing is done where that has happened already (Ray Train's `JaxTrainer` does it),
    for one process, and with "off" or RPJAX_DISTRIBUTED=off. Otherwise by, in order:
    the arguments; the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, of which JAX itself reads only the first; what JAX detects (Open
    MPI, Slurm, TPU, Kubernetes).

    mode: "auto", or "off".
    coordinator_address: HOST:PORT of process 0; with `num_processes` and `process_id`.
    timeout_seconds: how long to wait for the others; None is
        RPJAX_DISTRIBUTED_SECONDS, or 300.

    Raises:
        InputError: settings that contradict each other.
        TimeoutError: some process never came; end this one then, since it cannot try
            again.
    """
    seconds = _limit(timeout_seconds)
    given = (coordinator_address, num_processes, process_id)
    place = _explicit(*given) if any(g is not None for g in given) else None
    if jax.distributed.is_initialized():
        return Processes(jax.process_index(), jax.process_count(), "joined before")
    if place is None:
        if mode == "off" or _switched_off(os.environ):
            return Processes(0, 1, "off")
        place = _announced(os.environ) or _detected(os.environ)
    if place is None or place.count == 1:
        return Processes(0, 1, "one process")
    return _joined(place, seconds)


def first() -> bool:
    """Whether this process writes files and prints."""
    return int(jax.process_index()) == 0


def joined() -> bool:
    """Whether this process has met others, or is about to."""
    return bool(jax.distributed.is_initialized())


def leave(code: int, seconds: float = 10.0) -> NoReturn:
    """End this process: with the others if they end too, else alone and soon.

    An ordinary end waits for all processes, and those that are still at work wait for
    this one; as it is gone, they end as well.
    """
    if seconds:
        thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        thread.start()
        thread.join(seconds)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def shared(value: Any) -> Any:
    """What process 0 holds, of JSON's types, in every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    text = json.dumps(value).encode() if first() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    # few shapes, since each is compiled for
    room = 1 << max(10, (size - 1).bit_length())
    buffer = np.zeros(room, np.uint8)
    buffer[: len(text)] = np.frombuffer(text, np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(buffer), np.uint8)
    return json.loads(told[:size].tobytes())


def from_first(array: np.ndarray) -> np.ndarray:
    """An array as process 0 has it, in every process; all must give the same shape."""
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(array), array.dtype)


def together(
    action: Callable[[], Result], *, only_first: bool = False
) -> Result | None:
    """Do something in every process, or in the first alone; fail in all if one fails.

    Otherwise the others would wait for a process that has ended.

    Returns:
        The action's result; None in the others, with `only_first`.

    Raises:
        FailedElsewhere: another process failed; that one raises its own error.
    """
    if jax.process_count() == 1:
        return action()
    error, result = None, None
    try:
        if first() or not only_first:
            result = action()
    except (InputError, OSError) as failure:
        error = failure
    told = _everyone("" if error is None else str(error) or type(error).__name__)
    if error is not None:
        raise error
    for index, message in enumerate(told):
        if message:
            raise FailedElsewhere(f"process {index}: {message}")
    return result


def alike(what: str, fingerprint: str) -> None:
    """Refuse to go on if processes differ in `what`, of which this is a short name."""
    if jax.process_count() == 1:
        return
    told = _everyone(fingerprint)
    for index, other in enumerate(told):
        if other != told[0]:
            raise InputError(
                f"{what} of process {index} is {other}; that of process 0 is "
                f"{told[0]}: give every process the same"
            )


def _everyone(text: str) -> list[str]:
    from jax.experimental import multihost_utils

    mine = np.zeros(1024, np.uint8)
    encoded = np.frombuffer(text.encode()[: mine.size], np.uint8)
    mine[: encoded.size] = encoded
    rows = np.asarray(multihost_utils.process_allgather(mine), np.uint8)
    rows = rows.reshape(jax.process_count(), -1)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]


# Who a process is -----------------------------------------------------------------


def _limit(seconds: float | None) -> float:
    given = os.environ.get(LIMIT, SECONDS) if seconds is None else seconds
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        name = LIMIT if seconds is None else "timeout_seconds"
        raise InputError(f"{name} is {given!r}; it must be a number of seconds > 0")
    return limit


def _switched_off(environment: Mapping[str, str]) -> bool:
    value = environment.get(SWITCH, "auto")
    if value not in ("auto", "off"):
        raise InputError(f"{SWITCH} is {value!r}; it is auto or off")
    return value == "off"


def _explicit(address: str | None, count: int | None, index: int | None) -> Place:
    named = {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
    }
    missing = [name for name, value in named.items() if value is None]
    if missing:
        raise InputError(f"{missing[0]} is not given; give {', '.join(named)} together")
    assert address is not None
    assert count is not None
    assert index is not None
    return _checked(address, count, index, tuple(named), "as given")


def _announced(environment: Mapping[str, str]) -> Place | None:
    """By the three variables, which Kubeflow sets and any script can."""
    address, count, index = values = [environment.get(name) for name in NAMES]
    if count is None and index is None:
        # the address alone leaves the rest to a cluster that JAX detects
        if address is not None and not _cluster(environment):
            raise InputError(
                f"{NAMES[0]} is set and {NAMES[1]} is not; set {', '.join(NAMES)}"
            )
        return None
    for name, value in zip(NAMES, values, strict=True):
        if value is None:
            raise InputError(f"{name} is not set; set {', '.join(NAMES)} together")
        if name != NAMES[0] and not value.isdigit():
            raise InputError(f"{name} is {value!r}; it must be a whole number")
    assert address is not None
    assert count is not None
    assert index is not None
    return _checked(address, int(count), int(index), NAMES, "the JAX_* variables")


def _checked(
    address: str, count: int, index: int, names: tuple[str, ...], found: str
) -> Place:
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(f"{names[0]} is {address!r}; it must be HOST:PORT")
    if count < 1:
        raise InputError(f"{names[1]} is {count}; it must be >= 1")
    if not 0 <= index < count:
        raise InputError(
            f"{names[2]} is {index}; with {names[1]} = {count} it must lie between 0 "
            f"and {count - 1}"
        )
    return Place(address, count, index, found)


def _cluster(environment: Mapping[str, str]) -> Place | None:
    """A launcher that JAX knows, as far as its variables tell."""
    for found, sign, count, index in (
        (
            *("Open MPI", "OMPI_MCA_orte_hnp_uri"),
            *("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ),
        ("Slurm", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID"),
    ):
        if sign in environment:
            known = [environment.get(name, "") for name in (count, index)]
            size, rank = (int(text) if text.isdigit() else None for text in known)
            return Place(None, size, rank, found)
    if "KUBERNETES_SERVICE_HOST" in environment:
        # in a pod that is no part of an indexed job, JAX's detection would only fail
        if "JOB_COMPLETION_INDEX" not in environment:
            return None
        return Place(None, None, int(environment["JOB_COMPLETION_INDEX"]), "Kubernetes")
    return None


def _detected(environment: Mapping[str, str]) -> Place | None:
    """By what JAX detects; None where it finds nothing."""
    if known := _cluster(environment):
        return known
    if "KUBERNETES_SERVICE_HOST" in environment:
        return None
    return Place(None, None, None, "TPU")


# Joining --------------------------------------------------------------------------


def _joined(place: Place, seconds: float) -> Processes:
    failures: list[BaseException] = []

    def join() -> None:
        try:
            jax.distributed.initialize(
                place.address,
                place.count if place.address else None,
                place.index if place.address else None,
                # at its own limit JAX ends the whole process, without any message
                initialization_timeout=int(seconds) + 600,
            )
        except BaseException as error:
            failures.append(error)

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(_absent(place, seconds))
    if failures:
        return _alone(place, failures[0])
    _keep_sigterm(handler)
    return Processes(jax.process_index(), jax.process_count(), place.found)


def _alone(place: Place, error: BaseException) -> Processes:
    """Without a cluster, one process; any other failure is told."""
    nothing = isinstance(error, ValueError) and "coordinator_address" in str(error)
    late = isinstance(error, RuntimeError) and "must be called before" in str(error)
    if place.found == "TPU" and (nothing or late):
        return Processes(0, 1, "one process")
    if late:
        raise InputError(
            f"{place.found}: a device is in use already; call "
            "rpjax.distributed.initialize before anything computes"
        ) from error
    reason = " ".join(str(error).split()) or type(error).__name__
    raise InputError(
        f"{place.found}: the processes cannot be joined ({reason}); mend that, or set "
        f"{SWITCH}=off"
    ) from error


def _keep_sigterm(handler: Any) -> None:
    """JAX takes SIGTERM for itself, and would let it pass where nobody asks it."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _absent(place: Place, seconds: float) -> str:
    """Who waited for whom, where, how long, and what to do."""
    who = "this process" if place.index is None else f"process {place.index}"
    if place.count is not None:
        who += f" of {place.count}"
    where = f" at {place.address}" if place.address else ""
    others = "the others" if place.count is None else f"the other {place.count - 1}"
    if place.address and place.index and not _answers(place.address):
        whom = f"process 0{where}, which does not answer"
    elif place.index:
        whom = f"{others}; process 0{where} answers, and not all have come to it"
    else:
        whom = f"{others}{where}, and not all have come"
    return (
        f"{who} waited {seconds:g} s for {whom} ({place.found}); see that all are "
        f"started and can reach that address, or wait longer with {LIMIT}"
    )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
    except OSError:
        return False
