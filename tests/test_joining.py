"""How a process learns who it is: launchers' variables, arguments, refusals."""

import os
import re

import jax
import numpy as np
import pytest

from rpjax import distributed
from rpjax.errors import InputError

# -------------------------------------------------------------------- who a process is


@pytest.fixture
def variables(monkeypatch):
    """Only these variables of launchers are set."""

    def given(**values):
        names = (*distributed.NAMES, "RPJAX_DISTRIBUTED", "RPJAX_DISTRIBUTED_SECONDS")
        for name in [*names, *os.environ]:
            if name in names or name.startswith(("SLURM_", "OMPI_", "KUBERNETES_")):
                monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    given()
    return given


@pytest.fixture
def asked(monkeypatch):
    """What JAX is asked to do, instead of doing it."""
    calls = []

    def initialize(*args, **options):
        calls.append(args)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    return calls


def test_one_process_is_left_alone(variables):
    """As it is now: devices are in use, and no launcher has set anything."""
    found = distributed.initialize()
    assert (found.index, found.count, found.found) == (0, 1, "one process")
    assert not distributed.joined()


def test_off_means_off(variables, asked):
    variables(JAX_COORDINATOR_ADDRESS="a:1", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="0")
    assert distributed.initialize("off").count == 1
    os.environ["RPJAX_DISTRIBUTED"] = "off"
    assert distributed.initialize().count == 1
    assert asked == []


def test_what_is_joined_already_is_not_joined_again(variables, asked, monkeypatch):
    """Ray Train's JaxTrainer calls jax.distributed.initialize itself."""
    variables(JAX_COORDINATOR_ADDRESS="a:1", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="0")
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert distributed.initialize().found == "joined before"
    assert asked == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {
                "JAX_COORDINATOR_ADDRESS": "host:1234",
                "JAX_NUM_PROCESSES": "4",
                "JAX_PROCESS_ID": "3",
            },
            [("host:1234", 4, 3)],
        ),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "host:1234",
                "JAX_NUM_PROCESSES": "1",
                "JAX_PROCESS_ID": "0",
            },
            [],
        ),
        (
            {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"},
            [(None, None, None)],
        ),
        (
            {"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
            [],
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, [(None, None, None)]),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, []),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"},
            [(None, None, None)],
        ),
        (
            {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1", "OMPI_COMM_WORLD_SIZE": "2"},
            [(None, None, None)],
        ),
        ({}, [(None, None, None)]),
    ],
)
def test_launchers_are_known_by_their_variables(variables, asked, values, expected):
    """JAX is asked to detect the rest; a bare pod is no cluster."""
    variables(**values)
    distributed.initialize()
    assert asked == expected


THREE = {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "2"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (THREE, "JAX_PROCESS_ID is not set; set JAX_COORDINATOR_ADDRESS, "),
        ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_NUM_PROCESSES is not"),
        ({"JAX_PROCESS_ID": "1"}, "JAX_COORDINATOR_ADDRESS is not set"),
        ({**THREE, "JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID is 2; with JAX_NUM_PROC"),
        ({**THREE, "JAX_PROCESS_ID": "x"}, "JAX_PROCESS_ID is 'x'; it must be a whole"),
        (
            {**THREE, "JAX_PROCESS_ID": "0", "JAX_NUM_PROCESSES": "0"},
            "JAX_NUM_PROCESSES is 0; it must be >= 1",
        ),
        (
            {**THREE, "JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "host"},
            "JAX_COORDINATOR_ADDRESS is 'host'; it must be HOST:PORT",
        ),
        ({"RPJAX_DISTRIBUTED": "no"}, "RPJAX_DISTRIBUTED is 'no'; it is auto or off"),
        ({"RPJAX_DISTRIBUTED_SECONDS": "0"}, "RPJAX_DISTRIBUTED_SECONDS is '0'; it"),
        ({"RPJAX_DISTRIBUTED_SECONDS": "x"}, "RPJAX_DISTRIBUTED_SECONDS is 'x'; it"),
    ],
)
def test_variables_that_cannot_be_are_refused(variables, asked, values, message):
    variables(**values)
    with pytest.raises(InputError, match=re.escape(message)):
        distributed.initialize()
    assert asked == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_processes": 2}, "coordinator_address is not given; give coord"),
        ({"coordinator_address": "h:1", "num_processes": 2}, "process_id is not"),
        (
            {"coordinator_address": "h:1", "num_processes": 2, "process_id": 2},
            "process_id is 2; with num_processes = 2 it must lie between 0 and 1",
        ),
        ({"timeout_seconds": -1.0}, "timeout_seconds is -1.0; it must be a number"),
    ],
)
def test_arguments_that_cannot_be_are_refused(variables, asked, given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        distributed.initialize(**given)
    assert asked == []


def test_joining_after_a_device_was_used_is_refused(variables):
    assert jax.devices()
    with pytest.raises(InputError, match=r"^as given: a device is in use already"):
        distributed.initialize(
            coordinator_address="127.0.0.1:1", num_processes=2, process_id=0
        )


def test_in_one_process_everything_is_shared_already():
    value = {"a": object()}
    assert distributed.shared(value) is value
    assert distributed.together(lambda: 3, only_first=True) == 3
    array = np.arange(3)
    assert distributed.from_first(array) is array
    with pytest.raises(InputError, match="mine"):
        distributed.together(_refuse)
    distributed.alike("the data", "a")


def _refuse():
    raise InputError("mine")
