"""The launch files are what they say: they parse, and so does every command in them."""

import ast
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import tyro
import yaml
from tiny_experiment import rpjax

from rpjax.cli import commands
from rpjax.experiments.sweep import read_sweep

LAUNCH = Path(__file__).parents[1] / "docs" / "launch"
FILES = sorted(p for p in LAUNCH.iterdir() if p.is_file())
THREE = {"JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"}


def command_lines(text):
    """Every command of rpjax in a text, in a comment or between back quotes too."""
    pattern = r"""\brpjax (?:train|compare|job|sweep|merge) [^\n`']*"""
    return [shlex.split(line)[1:] for line in re.findall(pattern, text)]


def parsed(words):
    """By the parser of the command line itself."""
    kind, _ = commands._COMMANDS[words[0]]
    return tyro.cli(kind, args=words[1:], config=(commands.Flat,))


def numbered(words):
    """A shell's variables stand for a job's number."""
    return ["0" if re.fullmatch(r"\$SLURM_ARRAY_TASK_ID", w) else w for w in words]


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_every_command_in_a_file_is_one(file):
    found = [w for w in command_lines(file.read_text()) if "..." not in w]
    if file.name not in ("ray_train.py", "sweep.yaml"):
        assert found
    for words in found:
        options = parsed(numbered(words))
        if words[0] == "train":
            assert options.resume, "a launcher starts it again with the same words"


def test_a_command_that_does_not_exist_would_be_noticed():
    (words,) = command_lines("srun rpjax train --epoch 3 --resume\n")
    with pytest.raises(SystemExit):
        parsed(words)


@pytest.mark.parametrize("file", sorted(LAUNCH.glob("*.sh")), ids=lambda p: p.name)
def test_shell_files_parse(file):
    subprocess.run(["bash", "-n", file], check=True)


@pytest.mark.parametrize("file", sorted(LAUNCH.glob("*.yaml")), ids=lambda p: p.name)
def test_yaml_files_parse(file):
    assert all(isinstance(d, dict) for d in yaml.safe_load_all(file.read_text()))


def test_the_jobset_says_who_each_pod_is():
    """The names that JobSet gives: JOBSET-JOB-REPLICA-INDEX.JOBSET."""
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    inner = job["template"]["spec"]
    (container,) = inner["template"]["spec"]["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    assert env.keys() == THREE
    name = jobset["metadata"]["name"]
    host, port = env["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    assert host == f"{name}-{job['name']}-0-0.{name}"
    assert {"containerPort": int(port)} in container["ports"]
    assert int(env["JAX_NUM_PROCESSES"]["value"]) == inner["parallelism"]
    assert inner["completions"] == inner["parallelism"]


def test_skypilot_exports_the_three_names():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    script = task["run"].partition("exec rpjax")[0] + "env"
    env = {
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
        "PATH": "/usr/bin:/bin",
    }
    out = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "JAX_COORDINATOR_ADDRESS=10.0.0.1:55527" in out
    assert "JAX_NUM_PROCESSES=2" in out
    assert "JAX_PROCESS_ID=1" in out


def test_slurm_starts_one_task_for_each_gpu_and_hands_on_sigterm():
    text = (LAUNCH / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", text, re.MULTILINE))
    assert options["gres"] == f"gpu:{options['ntasks-per-node']}"
    assert options["signal"] == "TERM@120"
    assert "#SBATCH --requeue" in text
    assert '"$status" -eq 75' in text


def test_the_sweep_has_as_many_jobs_as_the_launchers_start():
    count = len(read_sweep(LAUNCH / "sweep.yaml").settings())
    job = yaml.safe_load((LAUNCH / "indexed_job_sweep.yaml").read_text())
    assert job["spec"]["completions"] == count
    for name in ("slurm_sweep.sh", "README.md"):
        assert f"--array=0-{count - 1}" in (LAUNCH / name).read_text()


@pytest.mark.slow
def test_ray_s_training_function_trains_goes_on_and_fails_loudly(tmp_path):
    """With the worker's configuration, and without Ray."""
    file = LAUNCH / "ray_train.py"
    ast.parse(file.read_text())
    spec = importlib.util.spec_from_file_location("ray_train", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tiny = ["--train-records", "128", "--epochs", "1", "--batch-size", "64"]
    config = {"data": "digits", "method": "plain", "options": tiny}
    config["out"] = str(tmp_path / "out")
    assert module.CONFIG.keys() == config.keys()
    module.train(config)
    before = (tmp_path / "out" / "results.json").read_text()
    module.train(config)
    assert (tmp_path / "out" / "methods" / "plain.json").exists()
    assert before.count('"name": "plain"') == 1
    with pytest.raises(RuntimeError, match="rpjax ended with status 2"):
        module.train(config | {"options": [*tiny, "--depth", "9"]})
    assert rpjax("evaluate", tmp_path / "out").code == 0
