"""`rpjax audit` and its report from the command line."""

import json

import pytest
import sample_attacks
from tiny_experiment import rpjax

from rpjax.cli import commands
from rpjax.experiments import ExperimentConfig, RunFolder
from rpjax.experiments.values import overlaid

pytest_plugins = ["tiny_experiment"]


@pytest.fixture
def asked(monkeypatch):
    """What the command asked for; the answer is made up."""
    calls = []

    def audit(experiment, out, **options):
        calls.append((experiment, options))
        out.mkdir(parents=True, exist_ok=True)
        return sample_attacks.sample()

    monkeypatch.setattr(commands, "audit", audit)
    return calls


def test_options_reach_the_audit_and_its_report_is_written(asked, tmp_path):
    words = ["--models", 32, "--kinds", "clean", "--members", 3, "--gamma", 0.25]
    said = rpjax("audit", *words, "--resume", "--out", tmp_path)
    assert said.code == 0, said.err
    ((experiment, options),) = asked
    assert experiment.audit.models == 32
    assert experiment.audit.kinds == ("clean",)
    assert experiment.audit.dp_noise == "utility"
    assert experiment.config.ensemble.members == 3
    assert experiment.config.noise.gamma == 0.25
    assert options["resume"]
    assert (tmp_path / "attacks.html").is_file()
    assert "attacks.html" in said.out.replace("\n", "")


def test_a_runs_own_configuration_is_audited(asked, tmp_path):
    changes = {"noise": {"gamma": 0.7}, "methods": ["strategy1"]}
    config = overlaid(ExperimentConfig(), changes, "config")
    RunFolder.start(tmp_path / "run", config)
    words = ["--run", tmp_path / "run", "--seed", 4]
    assert rpjax("audit", *words, "--out", tmp_path / "out").code == 0
    ((experiment, _),) = asked
    assert experiment.config.noise.gamma == 0.7
    assert experiment.config.methods == ("strategy1",)
    assert experiment.config.seed == 4, "what stands beside it comes on top"
    assert experiment.audit.dp_noise == "target"


def test_a_report_is_made_again_from_the_file(tmp_path):
    text = json.dumps(sample_attacks.sample())
    (tmp_path / "attacks.json").write_text(text)
    said = rpjax("report", tmp_path)
    assert said.code == 0, said.err
    assert (tmp_path / "attacks.md").is_file()


def test_a_folder_without_a_run_is_refused(tmp_path):
    said = rpjax("audit", "--run", tmp_path)
    assert said.code == 2
    assert "holds no run" in said.err
