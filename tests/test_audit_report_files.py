import json
import re

import pytest
from sample_attacks import only, sample

from rpjax import report
from rpjax.errors import InputError
from rpjax.report import audits

FIGURES = ["roc", "draws", "tradeoff", "vulnerability", "by_class", "bounds", "scores"]


def test_a_report_is_written_whole_and_can_be_replaced(tmp_path):
    (tmp_path / "attacks.md").write_text("an earlier report")
    files = report.audits.write(only(sample(), 1), tmp_path)
    assert files[0] == tmp_path / "attacks.html"
    present = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert present == set(files)
    names = {
        f"figures/attacks_{name}.{end}" for name in FIGURES for end in ("png", "svg")
    }
    names |= {"attacks.html", "attacks.md", "most_exposed.csv"}
    assert {str(path.relative_to(tmp_path)) for path in files} == names
    for path in re.findall(r"\]\(([^)]+)\)", files[1].read_text("utf-8")):
        assert (tmp_path / path).is_file()


def test_contents_come_back_from_the_file(tmp_path):
    (tmp_path / "attacks.json").write_text(json.dumps(sample()), "utf-8")
    assert audits.load(tmp_path) == audits.load(tmp_path / "attacks.json") == sample()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("{", "not a JSON file"),
        ('{"schema": "rpjax.results/1"}', "expected 'rpjax.attacks/1'"),
        ('{"schema": "rpjax.attacks/2"}', "upgrade rpjax"),
        ('{"schema": "rpjax.attacks/1"}', "attacks.json.created: missing"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path, contents, message):
    (tmp_path / "attacks.json").write_text(contents, "utf-8")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        audits.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("methods", [], "attacks.methods: empty"),
        ("methods.0.exposure", [], "methods[0].exposure: empty"),
        ("methods.1.name", "plain", "methods: 'plain' is there twice"),
        ("methods.0.exposure.0.kind", "odd", "exposure[0].kind: 'odd' is not among"),
        ("methods.0.exposure.0.strongest", "x", "strongest: 'x' is none of its"),
        ("methods.0.exposure.0.by_threat.T1", "x", "by_threat.T1: 'x' is none"),
        ("methods.0.exposure.0.attacks.0.roc.low", [0.1], "fpr, tpr, low, high have"),
        ("methods.0.exposure.0.attacks.0.tpr_at", [], "a target FPR of 0.01"),
        ("methods.0.exposure.0.histogram.edges", [0, 1], "edges: 2 for 24 bars"),
        ("methods.3.ceiling.tpr", [], "ceiling: fpr, tpr have lengths"),
        ("methods.3.guarantee.adjacency", None, "adjacency: null beside an epsilon"),
        ("methods.0.audits.0.epsilon", float("inf"), "epsilon: got inf"),
        ("controls.negative.passed", None, "passed: got NoneType, expected bool"),
        ("protocol.models_b", True, "models_b: got bool, expected int"),
    ],
)
def test_damaged_contents_are_refused_and_nothing_is_written(
    tmp_path, where, value, message
):
    results = sample()
    *path, last = where.split(".")
    place = results
    for key in path:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    with pytest.raises(InputError, match=re.escape(message)):
        audits.write(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "out"
    path.write_text("here first")
    with pytest.raises(InputError, match="out: cannot write"):
        audits.write(only(sample(), 0), path)
