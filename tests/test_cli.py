"""The command line: explains itself, refuses in one line, and does what it says."""

import os
import re
import subprocess
import sys
import time

import jax
import pytest
from tiny_experiment import FLAGS, SIZE, experiment, refused, rpjax

from rpjax.cli import COMMANDS
from rpjax.experiments import config, presets, read_config, values
from rpjax.privacy import dpsgd
from rpjax.version import __version__

pytest_plugins = ["tiny_experiment"]

TINY = ["compare", *FLAGS]


# ----------------------------------------------------------------------------- explains


def options(text):
    """Each option's block of a help page: the line that starts it and those below."""
    blocks = []
    for line in text.splitlines():
        if re.match("  (--?[a-z]|PATH)", line):
            blocks.append(line)
        elif blocks and line.startswith(8 * " "):
            blocks[-1] += line
    return blocks


def explanation(block):
    """What is left of a block without the option's name, values and default."""
    words = re.sub(r"\(default: .*?\)|\(required\)|\{[^}]*\}|\[[^]]*\]", "", block)
    words = re.sub(r"^  (--?[a-z-]+(, )?)+|\|?\b[A-Z]{3,}\b", "", words)
    return " ".join(re.findall(r"[A-Za-z]{2,}", words))


# another process explains this one: tests/test_cli_frameworks.py
OWN = [command for command in COMMANDS if command != "compare-frameworks"]


@pytest.mark.parametrize("command", OWN)
def test_help_explains_every_option(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    said = rpjax(command, "--help")
    assert (said.code, said.err) == (0, "")
    found = options(said.out)
    assert found
    for block in found:
        assert len(explanation(block)) >= 8, block
    if command in ("compare", "train", "account"):
        assert len(found) > 45
        assert "--config FILE" in said.out


def test_an_option_without_words_would_be_noticed():
    (block,) = options("  --floor, --no-floor {None}|FLOAT\n          (default: None)")
    assert explanation(block) == ""


def test_every_field_of_the_configuration_is_an_option_of_its_own():
    """Two fields of one name would hide each other, since names have no prefix."""
    text = rpjax("compare", "--help").out
    names = [re.match("  (--?[a-z-]+)", block)[1] for block in options(text)]
    assert len(names) == len(set(names))
    fields = values.differences(values.as_dict(config.ExperimentConfig()), {})
    others = {"-h", "--out", "--resume", "--overwrite", "--save-config"}
    assert others < set(names)
    assert len(set(names) - others) == len(fields)


def test_without_a_command_the_commands_are_listed():
    for words in ([], ["--help"], ["-h"]):
        said = rpjax(*words)
        assert said.code == 0
        for name, what in COMMANDS.items():
            assert re.search(rf"^  {name} +{what}$", said.out, re.MULTILINE)


def test_the_version_is_printed():
    assert rpjax("--version") == (0, f"rpjax {__version__}\n", "")


def test_an_unknown_command_is_answered_with_those_there_are():
    message = refused(rpjax("trian"))
    assert message == f"'trian' is no command; known: {', '.join(COMMANDS)}"


@pytest.mark.parametrize(
    "words",
    [
        *(["compare", "--bogus"], ["compare", "--epochs", "abc"], ["compare", "extra"]),
        *(["train", "--method", "sgd"], ["evaluate"], ["compare", "--norm", "layer"]),
        *(["compare", "--config"], ["account", "--shape", "28", "28"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_parsed_ends_with_2_and_without_a_traceback(words):
    said = rpjax(*words)
    assert said.code == 2
    assert "Traceback" not in said.out + said.err


# -------------------------------------------------------------------- configurations


def test_a_saved_configuration_reproduces_itself(tmp_path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    words = ["--gamma", 0.25, "--data-dir", "some where", "--methods", "plain", "dpsgd"]
    said = rpjax(*TINY, *words, "--save-config", one, "--out", tmp_path / "out")
    assert said.code == 0
    assert not (tmp_path / "out").exists()
    assert rpjax("compare", "--config", one, "--save-config", other).code == 0
    assert one.read_text() == other.read_text()
    assert rpjax("compare", f"--config={one}", "--save-config", other).code == 0
    assert one.read_text() == other.read_text()
    saved = read_config(one)
    assert (saved.noise.gamma, saved.seed) == (0.25, 3)
    assert saved.methods == ("plain", "dpsgd")


def test_options_beside_a_configuration_come_on_top(tmp_path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    assert rpjax(*TINY, "--save-config", one).code == 0
    words = ["--seed", 9, "--config", one, "--momentum", 0.5, "--save-config", other]
    assert rpjax("compare", *words).code == 0
    saved = [values.as_dict(read_config(file)) for file in (one, other)]
    changed = values.differences(*saved)
    assert changed == ["seed", "training.momentum"]


def test_a_partial_configuration_keeps_each_command_s_own_defaults(tmp_path):
    """Training for release hides its noise, with or without a file of options."""
    file = tmp_path / "part.yaml"
    file.write_text("noise: {input_noise: 1.0}\nmethods: [strategy1]\n")
    words = ["account", "--records", 1000, "--shape", 8, 8, 1]
    said = rpjax(*words, "--config", file)
    secret = rpjax(*words, "--methods", "strategy1", "--input-noise", 1.0)
    assert said == secret
    assert rpjax(*words, "--config", file, "--noise-seed", "fixed").out != said.out


# ----------------------------------------------------------------- does its work


def percentages(line):
    return [float(value) for value in re.findall(r"(-?\d+\.\d) %", line)]


def test_evaluate_prints_the_accuracies_of_the_results(compared, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    said = rpjax("evaluate", compared.folder)
    assert said.code == 0, said.err
    for method in compared.results["methods"]:
        (line,) = [x for x in said.out.splitlines() if method["label"] in x]
        names = ("test_accuracy", "train_accuracy", "generalization_gap")
        expected = [100 * method["utility"][name]["value"] for name in names]
        assert percentages(line) == pytest.approx(expected, abs=0.051)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Strategy I as the comparison trains it, by the command for one method."""
    out = tmp_path_factory.mktemp("trained") / "out"
    words = ["--method", "strategy1", "--train-on", "members", "--noise-seed", "fixed"]
    assert rpjax("train", *FLAGS, *words, "--out", out).code == 0
    return experiment(out)


def test_train_gives_the_comparison_s_own_numbers(compared, trained):
    one, other = trained.method("strategy1"), compared.method("strategy1")
    for key in ("utility", "exposure", "model", "label"):
        assert one[key] == other[key]
    # it names the configuration, which lists other methods
    own = {"configuration": one["guarantee"]["configuration"]}
    assert one["guarantee"] == {**other["guarantee"], **own}


def test_evaluate_can_switch_the_noise_off(trained, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    said = rpjax("evaluate", trained.folder, "--no-noise")
    (line,) = [line for line in said.out.splitlines() if "Strategy I" in line]
    quiet = trained.method("strategy1")["utility"]["noise_off_test_accuracy"]
    assert percentages(line)[0] == pytest.approx(100 * quiet["value"], abs=0.051)


def test_attack_asks_as_it_is_told_and_finds_again_what_the_run_found(trained):
    before = trained.method("strategy1")["exposure"]
    assert rpjax("attack", trained.folder, "--draws", 3).code == 0
    more = experiment(trained.folder)
    first, second = more.method("strategy1")["exposure"]
    assert (first["threat"], second["threat"]) == ("T2", "T4")
    assert first["query"] == "the mean of 3 noisy answers per record"
    assert first["attacks"] != before[0]["attacks"]
    assert second == before[1], "without noise there is nothing to average"
    assert more.results["config"]["attack"]["draws"] == 3
    written = read_config(trained.folder / "config.yaml")
    assert values.config_hash(written) == more.results["config_hash"]
    assert "mean of 3 noisy answers" in (trained.folder / "report.html").read_text()
    assert rpjax("attack", trained.folder, "--draws", 1).code == 0
    assert experiment(trained.folder).results == trained.results


def test_what_was_trained_on_everything_is_not_attacked(tmp_path):
    words = ["--methods", "plain", "--train-on", "all"]
    file = tmp_path / "config.yaml"
    assert rpjax(*TINY, *words, "--save-config", file).code == 0
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "plain.json").write_text("{}")
    (tmp_path / "results.json").write_text("{}")
    assert "leaves no non-members" in refused(rpjax("attack", tmp_path))


def test_report_writes_the_same_page_and_table_again(compared):
    page = compared.folder / "report.html"
    before = page.read_text()
    page.unlink()
    said = rpjax("report", compared.folder)
    assert said.code == 0
    assert page.read_text() == before
    assert compared.printed.endswith(said.out.strip("\n") + "\n")


def test_account_states_the_guarantees_of_the_comparison(compared, monkeypatch):
    """Without training: in seconds, and for the same records and steps."""
    monkeypatch.setenv("COLUMNS", "300")
    began = time.monotonic()
    words = ["--train-on", "members", "--noise-seed", "fixed"]
    said = rpjax("account", *FLAGS, *words)
    assert time.monotonic() - began < 20
    assert said.code == 0, said.err
    for method in compared.results["methods"]:
        guarantee = method["guarantee"]
        assert method["label"] in said.out
        assert guarantee["mechanism"].replace(" ", "") in "".join(said.out.split())
        assert "".join(guarantee["statement"].split()) in "".join(said.out.split())


def test_account_needs_no_data_where_the_records_are_counted(monkeypatch):
    def no_data(*_, **__):
        raise AssertionError("data were loaded")

    monkeypatch.setattr("rpjax.experiments.preparing.load", no_data)
    monkeypatch.setattr("rpjax.data.sources.SOURCES", {})
    words = ["--records", 60_000, "--shape", 28, 28, 1, "--data", "mnist"]
    said = rpjax("account", *words, "--methods", "strategy1", "--input-noise", 7)
    assert said.code == 0, said.err
    # two pixels to 28 x 28, six epochs: mu = 56 sqrt(6) / 7
    assert "μ = 19.6" in " ".join(said.out.split())
    assert refused(rpjax("account", "--records", 0)).startswith("records is 0")
    assert refused(rpjax("account", "--records", 9)).startswith("batch_size is 128")
    message = refused(rpjax("account", *words, "--epochs", "inf"))
    assert message.startswith("training.epochs is inf")


def test_account_puts_the_figures_of_dpsgd_side_by_side():
    words = ["--records", 6000, "--shape", 28, 28, 1, "--data", "mnist"]
    words += ["--methods", "dpsgd", "--noise-multiplier", 3]
    said = rpjax("account", *words)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    head = next(n for n, line in enumerate(lines) if line.strip().startswith("ε at δ"))
    assert lines[head].split()[-2:] == ["PLD", "RDP"]
    preset = presets.MNIST["dp"]
    q = preset["batch_size"] / 6000
    steps = round(preset["epochs"] / q)
    figures = [dpsgd.epsilon(3.0, q, steps, 1e-5, name) for name in ("pld", "rdp")]
    # every digit that is printed is right
    assert lines[head + 1].split()[-2:] == [f"{figure:.4g}" for figure in figures]
    assert lines[head + 1].strip().startswith("add or remove one record")
    swapped = dpsgd.epsilon(3.0, q, steps, 1e-5, adjacency="replace_one")
    shown, none = lines[head + 2].split()[-2:]
    assert shown == f"{swapped:.4g}"
    assert none == "-"
    # the statement in prose is above them
    assert any("Adding or removing any one training record" in x for x in lines[:head])


# ---------------------------------------------------------------------- as a process


def process(*words, **options):
    command = [sys.executable, "-m", "rpjax.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_the_program_exits_with_what_the_command_returns(tmp_path):
    bad = process("compare", *SIZE, "--depth", 9, "--out", tmp_path / "out")
    assert (bad.returncode, bad.stdout) == (2, "")
    (line,) = bad.stderr.splitlines()
    assert line.startswith("rpjax: error: depth is 9; ")
    assert not (tmp_path / "out").exists()


def test_more_devices_than_there_are_is_one_line(tmp_path):
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    words = ["compare", *SIZE, "--devices", 3, "--batch-size", 63]
    bad = process(*words, "--out", tmp_path / "out", env=env)
    assert bad.returncode == 2
    assert bad.stderr == "rpjax: error: devices is 3; there is 1 (cpu)\n"
    assert jax.device_count() > 1, "which is why it takes another process"
