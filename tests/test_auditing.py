"""The audit from its options to its files, small; what it must refuse."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from rpjax import audits, report
from rpjax.attacks import findings
from rpjax.audits import Coins
from rpjax.errors import InputError
from rpjax.experiments import auditing, verdicts
from rpjax.experiments.audit_config import AuditConfig, AuditExperiment
from rpjax.experiments.config import ExperimentConfig
from rpjax.experiments.runs import AuditFolder
from rpjax.experiments.values import overlaid

pytestmark = pytest.mark.xdist_group("audited")

CONFIG = overlaid(
    ExperimentConfig(),
    {
        "data": {"train_records": 120},
        "training": {"epochs": 1.0, "batch_size": 32},
        "methods": ["plain", "strategy1"],
        "model": {"channels": 4},
    },
    "config",
)
OPTIONS = AuditConfig(models=8, audited=8, canaries=10, draws=2, chunk=8)
EXPERIMENT = AuditExperiment(CONFIG, OPTIONS)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("audit") / "out"
    auditing.audit(EXPERIMENT, out, console=QUIET)
    return out


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "attacks.json").read_text())


# -------------------------------------------------------------------------- the files


def test_a_report_can_be_made_of_it(folder, results):
    report.audits.check(results)
    assert report.audits.load(folder) == results
    assert [m["name"] for m in results["methods"]] == ["plain", "strategy1"]
    assert [k["kind"] for k in results["protocol"]["kinds"]] == ["mislabelled", "clean"]
    assert results["data"]["fixed"] == 100
    assert results["data"]["expected_records"] == 110


def test_every_bound_follows_from_the_scores_that_are_kept(folder, results):
    arrays = np.load(folder / "attacks.npz")
    kinds = [kind["kind"] for kind in results["protocol"]["kinds"]]
    for method in results["methods"]:
        for told in method["audits"]:
            place = 10 * kinds.index(told["canaries"])
            own = slice(place, place + 10)
            name = f"{method['name']}.{told['canaries']}.{told['attack']}"
            found = audits.audit(
                arrays[f"{name}.A"],
                Coins(arrays["coins_A"][:, own], "balanced", 0),
                arrays[f"{name}.B"],
                Coins(arrays["coins_B"][:, own], "independent", 0),
                delta=1e-5,
                adjacency="add or remove one canary",
                threat=told["threat"],
                canaries=told["canaries"],
                tests=len(method["audits"]),
            )
            for field in ("epsilon", "guesses", "correct", "coins", "plan"):
                assert found.as_dict()[field] == told[field]


def test_the_strongest_of_each_level_is_audited(results):
    for method in results["methods"]:
        ranks = [
            max(findings.rank(a, kind["non_members"]) for a in kind["attacks"])
            for kind in method["exposure"]
        ]
        worst = method["exposure"][ranks.index(max(ranks))]
        assert {a["threat"]: a["attack"] for a in method["audits"]} == worst[
            "by_threat"
        ]
        assert {a["tests"] for a in method["audits"]} == {len(worst["by_threat"])}
        for threat, name in worst["by_threat"].items():
            own = [a for a in worst["attacks"] if a["threat"] == threat]
            best = max(findings.rank(a, worst["non_members"]) for a in own)
            mine = next(a for a in own if a["name"] == name)
            assert findings.rank(mine, worst["non_members"]) == best


def test_classes_of_so_few_canaries_have_no_interval_but_a_reason(results):
    for method in results["methods"]:
        for entry in method["exposure"]:
            table = entry["by_class"]
            assert table["attack"] == entry["strongest"]
            assert sum(found["records"] for found in table["classes"]) == 10
            assert sum(found["members"] for found in table["classes"]) == 40
            for found in table["classes"]:
                # 8 would be enough, which none of ten classes has here
                assert found["auc"] is None
                assert found["missing"]
            assert table["most_exposed"] is None
    assert "by_class" not in report.audits.all_figures(results)


def test_noise_is_what_makes_more_questions(results):
    plain, noisy = results["methods"]
    names = {
        m["name"]: {a["name"] for a in m["exposure"][0]["attacks"]}
        for m in (plain, noisy)
    }
    assert "lira_still" not in names["plain"]
    assert {"lira_still", "joint", "gradient"} <= names["strategy1"]
    assert plain["exposure"][0]["by_draws"] == []
    assert [d["draws"] for d in noisy["exposure"][0]["by_draws"]] == [1, 2]
    assert plain["exposure"][0]["mismatched"] is None
    assert noisy["exposure"][0]["mismatched"]["with"] == "Plain"


def test_what_is_known_of_the_audit_is_told(results):
    texts = " ".join(w["text"] for w in results["warnings"])
    assert "canaries as other records" in texts
    assert "seed" in texts
    assert "below resolution" in texts
    assert results["controls"]["negative"]["passed"]


def test_a_finished_audit_is_not_trained_again(folder, results, monkeypatch):
    def nothing(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(auditing, "shadow_models", nothing)
    again = auditing.audit(EXPERIMENT, folder, resume=True, console=QUIET)
    assert again["methods"] == results["methods"]
    faster = AuditExperiment(CONFIG, replace(OPTIONS, chunk=4))
    again = auditing.audit(faster, folder, resume=True, console=QUIET)
    assert again["methods"] == results["methods"]
    assert again["config_hash"] == results["config_hash"]


def test_another_audit_in_its_folder_is_refused(folder):
    with pytest.raises(InputError, match="holds another audit"):
        auditing.audit(EXPERIMENT, folder, console=QUIET)
    other = AuditExperiment(CONFIG, replace(OPTIONS, canaries=11))
    with pytest.raises(InputError, match=r"audit\.canaries differs"):
        auditing.audit(other, folder, resume=True, console=QUIET)


def test_a_folder_is_emptied_by_name(folder, tmp_path):
    copy = AuditFolder(tmp_path)
    for name in AuditFolder.written:
        if "*" not in name and not name.startswith("shadows"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
    (tmp_path / "mine.txt").write_text("x")
    copy._clear()
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"mine.txt"}


# ------------------------------------------------------------------------- what it says


def test_dpsgd_is_tuned_for_accuracy_unless_a_target_is_asked_for():
    config = replace(CONFIG, methods=("dpsgd",))
    tuned = auditing.prepare_audit(AuditExperiment(config, OPTIONS)).plans[0]
    assert tuned.learner.mechanism.noise_multiplier == 0.3
    target = replace(OPTIONS, dp_noise="target")
    plan = auditing.prepare_audit(AuditExperiment(config, target)).plans[0]
    assert 7.5 < plan.guarantee((8, 8, 1)).epsilon <= 8
    # how many canaries are in stays secret: the probability is that of all
    assert plan.records == 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": 7}, "models is 7"),
        ({"models": 4}, "models is 4"),
        ({"audited": 0}, "audited"),
        ({"kinds": ("clean", "clean")}, "kinds"),
        ({"kinds": ("out_of_distribution",)}, "others"),
        ({"others": "digits"}, "others"),
        ({"canaries": 60}, "count is 60"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_what_cannot_be_audited_is_refused_early(options, message):
    wrong = AuditExperiment(CONFIG, replace(OPTIONS, **options))
    with pytest.raises(InputError, match=message):
        auditing.prepare_audit(wrong)


def test_a_bound_above_a_proof_of_the_same_neighbours_fails_the_control(results):
    part = json.loads(json.dumps(results["methods"][1]))
    part["guarantee"] |= {"epsilon": 1.0, "adjacency": "add or remove one record"}
    for epsilon, kept in ((0.9, True), (1.1, False)):
        part["audits"][0]["epsilon"] = epsilon
        assert verdicts.controls([part])["positive"]["passed"] is kept
    part["guarantee"]["adjacency"] = "replace one record's features, labels equal"
    assert verdicts.controls([part])["positive"]["passed"] is None


def test_accuracy_is_that_of_the_mean_model():
    log_probs = np.zeros((4, 1, 10, 3))
    labels = np.arange(10) % 3
    for model, right in enumerate((10, 8, 6, 8)):
        log_probs[model, 0, np.arange(10), (labels + (np.arange(10) >= right)) % 3] = 1
    found = verdicts.accuracy(log_probs, labels)
    assert found.value == pytest.approx(0.8)
    half = 3.182446 * np.std([1, 0.8, 0.6, 0.8], ddof=1) / 2
    assert found.low == pytest.approx(0.8 - half, abs=1e-6)
