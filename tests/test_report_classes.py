"""Exposure by class in both reports: there, true to the file, left out if absent."""

import re

import pytest
import sample_attacks
import sample_results
from reading import Page, assert_references_resolve, words_of

from rpjax import report
from rpjax.errors import InputError
from rpjax.report import by_class, formats
from rpjax.report.results import deployed

SECTION = "Exposure by class"


def few(sample):
    """Two methods are enough, and quicker."""
    results = sample()
    return results | {"methods": results["methods"][:2]}


SAMPLES = [(report, sample_results.sample), (report.audits, sample_attacks.sample)]


@pytest.mark.parametrize(("package", "sample"), SAMPLES)
def test_every_class_of_every_method_and_query_is_in_both_views(package, sample):
    results = few(sample)
    page = package.page(results)
    assert_references_resolve(page)
    text = Page(page).text.replace("\xa0", " ")
    for view in (words_of(text), words_of(package.text(results))):
        assert SECTION in view
        assert "all 8 hold together with 95 % confidence" in view
        assert "widened to 99.38 % (Bonferroni)" in view
        for method in results["methods"]:
            for entry in method["exposure"]:
                table = entry["by_class"]
                assert words_of(by_class.sentence(table)) in view
                for found in table["classes"]:
                    for reason in found["missing"]:
                        assert reason in view
                    if area := found["auc"]:
                        ends = formats.auc_interval(area["low"], area["high"])
                        assert f"{area['value']:.3f} {ends}" in view


@pytest.mark.parametrize(("package", "sample"), SAMPLES)
def test_results_of_an_earlier_version_give_a_report_without_that_part(package, sample):
    old = few(sample)
    for method in old["methods"]:
        for entry in method["exposure"]:
            del entry["by_class"]
    assert package.check(old) == old
    for view in (package.page(old), package.text(old)):
        assert SECTION not in view
        assert "by_class" not in view


def test_a_row_shows_counts_rates_and_why_something_is_missing():
    rows = by_class.grid(sample_results.by_class("salem", 0.79)).rows
    said = [[" ".join(cell.lines()) for cell in row.cells] for row in rows]
    assert said[0][:4] == ["0", "180", "90", "90"]
    assert said[0][5].endswith("@ 20 % FPR")
    assert said[7][5] == "– 20 non-members: fewer than 10 false positives"
    assert said[8][4:] == ["– 3 members; 6 are needed", "–"]
    assert [row.strong for row in rows] == [k == 7 for k in range(10)]


def test_the_sentence_says_whether_it_may_be_chance():
    clear, chance = (sample_results.by_class("salem", x) for x in (0.79, 0.31))
    assert by_class.sentence(clear) == (
        "Class 7 stands out most: AUC 0.848 against 0.725 in the others, more than "
        "chance explains (p = 0.004)."
    )
    assert "which may be chance (p = 0.31)" in by_class.sentence(chance)
    chance["most_exposed"] = None
    assert by_class.sentence(chance).startswith("Fewer than two classes")


@pytest.mark.parametrize("classes", [1, 10, 100])
def test_the_figure_has_a_panel_for_each_method_and_a_bar_for_each_interval(classes):
    results = few(sample_results.sample)
    for method in results["methods"]:
        table = sample_results.by_class("salem", 0.5, (40,) * classes)
        deployed(method)["by_class"] = table
    figure = by_class.figure(results, deployed, report.DARK)
    for axes, method in zip(figure.axes, results["methods"], strict=True):
        title = axes.get_title(loc="left").replace("\xa0", " ")
        assert title.startswith(method["label"])
        bars = [line for line in axes.lines if line.get_marker() == "None"]
        # guessing and the AUC on all records are lines too
        assert len(bars) == classes + 2
        low, high = axes.get_ylim()
        for found in deployed(method)["by_class"]["classes"]:
            assert low < found["auc"]["low"] < found["auc"]["high"] < high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "other"}, "by_class.attack: 'other' is none of its attacks"),
        ({"classes": [{}]}, "by_class.classes[0].label: missing"),
        ({"intervals": None}, "by_class.intervals: got NoneType"),
    ],
)
def test_a_damaged_part_is_refused(change, message):
    results = sample_results.sample()
    results["methods"][1]["exposure"][1]["by_class"] |= change
    found = re.escape(f"methods[1].exposure[1].{message}")
    with pytest.raises(InputError, match=found):
        report.check(results)


def test_a_class_without_an_interval_is_not_the_most_exposed():
    results = sample_results.sample()
    results["methods"][0]["exposure"][0]["by_class"]["most_exposed"]["label"] = 9
    with pytest.raises(InputError, match=r"most_exposed\.label: 9 has no interval"):
        report.check(results)
