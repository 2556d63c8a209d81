import csv
import html
import io
import json
import re

import pytest
from reading import (
    Page,
    assert_loads_nothing,
    assert_references_resolve,
    words_of,
)
from rich.console import Console
from sample_attacks import attack, audit, method, only, sample
from sample_results import DPSGD

from rpjax.report import audits, drawing, grids
from rpjax.report.audits import curves, figures, tables, words
from rpjax.report.audits.content import headline, point, strongest
from rpjax.report.audits.write import listed


@pytest.fixture(scope="module")
def page():
    return audits.page(sample())


@pytest.fixture(scope="module")
def views(page):
    return {
        "page": words_of(Page(page).text),
        "markdown": words_of(html.unescape(audits.text(sample()))),
    }


def printed(results, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(audits.table(results, width))
    return console.export_text()


def cells(grid):
    return [words_of(" ".join(cell.lines())) for row in grid.rows for cell in row.cells]


def percent(value):
    return f"{100 * value:.1f} %"


# Verdict ----------------------------------------------------------------------------


def test_the_verdict_is_of_the_worst_kind_and_its_marked_attack():
    plain, first, several, _ = sample()["methods"]
    assert headline(first)["kind"] == "mislabelled"
    assert headline(several)["kind"] == "near_duplicate"
    text = words.verdict(first)
    found = point(strongest(headline(first)))
    assert text.startswith("T4, mislabelled canaries: LiRA, noise off finds ")
    assert percent(found["tpr"]) in text
    assert "at 1 % false positives (32 of 3200)" in text
    assert "ε ≥ 2.41 (95 %, δ = 1e-5, add or remove one canary" in text
    assert "one-run bound, 16 × 100 coins)" in text
    assert "accountant: ε ≤ 0.74 at δ = 1e-5 (replace one record's features" in text
    assert words.verdict(plain).endswith("; nothing proved.")


def test_the_marked_attack_is_taken_even_where_another_has_a_larger_area():
    results = sample()
    entry = headline(results["methods"][1])
    entry["strongest"] = "base"
    entry["attacks"][0]["auc"]["value"] = 0.999
    assert strongest(entry)["name"] == "base"
    rows = tables.attacks(entry).rows
    assert [row.cells[0].value for row in rows if row.strong] == ["BASE / RMIA"]


def test_a_bound_is_rounded_down_and_a_proof_up():
    made = method("x", "X", 0.9, {"clean": 1.0}, noisy=False, guarantee=DPSGD)
    made["audits"] = [audit(2.4199, "T1", "lira", "LiRA", kind="clean")]
    assert "ε ≥ 2.41 " in words.verdict(made)
    assert "ε ≤ 7.99 at δ" in words.verdict(made)


def test_a_bound_of_another_attack_than_the_one_named_says_so():
    plain = sample()["methods"][0]
    assert " by T" not in words.verdict(plain)
    plain["audits"] = [audit(1.0, "T2", "joint", "LiRA over draws", kind="clean")]
    assert "coins) by T2, clean canaries, LiRA over draws;" in words.verdict(plain)
    plain["audits"] = []
    assert "; not audited; " in words.verdict(plain)


def test_a_bound_of_zero_is_not_presented_as_a_finding():
    dpsgd = sample()["methods"][3]
    assert "ε ≥ 0 (" in words.verdict(dpsgd)
    assert "refutes nothing and proves nothing" in words.verdict(dpsgd)


def test_failed_controls_are_shown_as_failed_above_the_numbers(page):
    assert 'class="failed"' not in page
    assert 'class="alarm"' not in page
    results = only(sample(), 3)
    results["controls"]["positive"] = {"passed": None, "text": "Not among them."}
    results["controls"]["negative"] = {"passed": False, "text": "12 % above 0."}
    text = audits.page(results)
    alarm = "Do not rely on the numbers below: the negative control failed."
    assert text.index('<p class="alarm">' + alarm) < text.index("finds")
    assert '<b class="failed">FAILED</b>. 12\xa0% above 0.' in text
    assert "Positive control: <b>not run</b>. Not among them." in text
    assert f"**{alarm}**" in audits.text(results)
    assert alarm in words_of(printed(results, 100))


# Tables -----------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["page", "markdown"])
def test_every_number_of_every_attack_is_in_every_view(views, view):
    for each in sample()["methods"]:
        for entry in each["exposure"]:
            for found in entry["attacks"]:
                low, high = found["auc"]["low"], found["auc"]["high"]
                whole = f"{found['auc']['value']:.3f} [{low:.3f}, {high:.3f}]"
                assert whole in views[view]
                for target in (0.01, 0.001):
                    rate = tables.rate(point(found, target))
                    assert words_of(" ".join(rate.lines())) in views[view]
                for ppv in found["ppv"]:
                    assert percent(ppv["value"]) in views[view]


def test_a_rate_stands_with_its_interval_and_its_counts():
    found = point(attack("lira", "LiRA", "T1", 2.0, 3200))
    cell = tables.rate(found)
    assert cell.value == percent(found["tpr"])
    low, high = json.loads(cell.interval)
    assert low == pytest.approx(100 * found["low"], abs=0.06)
    assert high == pytest.approx(100 * found["high"], abs=0.06)
    assert cell.note == f"32 FP, {found['true_positives']} TP, at 1 %"


def test_cells_below_resolution_are_grey_and_say_so(page):
    entry = headline(sample()["methods"][0])
    for row in tables.attacks(entry).rows:
        assert row.grey == {5}
        assert row.cells[5].note.startswith("<10 FP: 3 FP, ")
        assert "<10 FP" not in row.cells[4].note
    grey = re.findall(r'<td data-label="([^"]+)" class="few">', page)
    assert grey
    assert set(grey) == {"TPR @ 0.1\xa0% FPR"}
    assert page.count("&lt;10 FP: ") == len(grey)


def test_a_precision_that_is_not_known_is_left_blank():
    entry = headline(sample()["methods"][0])
    entry["attacks"][0]["ppv"][1] = {"prior": 0.1, "value": None}
    entry["attacks"][0]["ppv"].pop()
    row = next(r for r in tables.attacks(entry).rows if r.cells[0].value[:4] == "Loss")
    assert [cell.value for cell in row.cells[-2:]] == ["–", "–"]


def test_audits_stand_beside_proofs_with_the_neighbours_of_both():
    text = cells(tables.audits(sample()))
    assert "ε ≥ 2.41 bound: 95 %, δ = 1e-5, add or remove one canary" in text
    assert "151 of 160 right 1600 coins (16 × 100)" in text
    proof = "ε ≤ 0.74 at δ = 1e-5 replace one record's features, labels equal"
    assert proof in text
    assert "ε ≤ 7.99 at δ = 1e-5 add or remove one record" in text
    assert "nothing proved" in text


def test_bounds_and_proofs_are_compared_only_for_the_same_neighbours():
    plain, first, _, dpsgd = sample()["methods"]
    low, high = audit(0.1, "T1", "a", "A"), audit(9.0, "T1", "a", "A")
    assert words.side_by_side(low, plain).startswith("Nothing is proved")
    assert words.side_by_side(low, dpsgd) == "Same neighbours; no contradiction."
    assert words.side_by_side(high, dpsgd).startswith("CONTRADICTION: the bound lies")
    assert words.side_by_side(high | {"delta": 1e-6}, dpsgd)[:4] == "Same"
    assert words.side_by_side(high, first).endswith("is no contradiction.")
    assert words.side_by_side(low, first).endswith("the two cannot be compared.")
    pair = {"adjacency": "replace a canary by its pair, label equal"}
    assert words.side_by_side(high | pair, first).startswith("CONTRADICTION")
    dpsgd["audits"] = [high]
    assert "lies above it: one of the two is wrong" in words.verdict(dpsgd)


def test_another_account_of_the_audited_neighbours_is_the_one_compared():
    dpsgd = sample()["methods"][3]
    proof = dpsgd["guarantee"]
    proof |= {"adjacency": "replace one record by another", "epsilon": 15.4}
    said = words.side_by_side(audit(1.0, "T1", "a", "A"), dpsgd)
    assert said == "For these neighbours ε ≤ 8.60 at δ = 1e-5 (RDP)."


def test_other_numbers_are_tagged_with_what_they_are():
    rows = [[c.value for c in r.cells] for r in tables.figures(only(sample(), 0)).rows]
    assert [row[2:4] for row in rows] == [
        ["μ ≥ 1.30", "bound"],
        ["ε ≥ 5.47", "estimate, no bound"],
        ["ε in [4.30, 9.25]", "credible interval, no bound"],
    ]
    assert "refuted" in cells(tables.claims(only(sample(), 0)))


def test_more_audits_than_were_corrected_for_are_told():
    results = sample()
    assert "corrected for" not in " ".join(words.audit_notes(results))
    results["methods"][1]["audits"].append(audit(1.0, "T2", "joint", "LiRA"))
    told = " ".join(words.audit_notes(results))
    assert "Strategy I (γ = 0.5): 3 audits, corrected for 2" in told


def test_the_contrast_shows_both_kinds_of_shadows():
    grid = tables.contrast(sample())
    assert len(grid.rows) == 6
    entry = headline(sample()["methods"][1])
    matched, other = grid.rows[0].cells[2:]
    assert matched.value == percent(point(strongest(entry))["tpr"])
    assert other.value == percent(point(entry["mismatched"]["attack"])["tpr"])
    assert other.note.endswith("LiRA, noise off; shadows: Plain")


def test_the_ten_most_exposed_are_shown_and_all_are_in_the_csv():
    results = sample()
    entry = headline(results["methods"][0])
    grid = tables.exposed(entry)
    assert len(grid.rows) == 10
    assert grid.rows[1].cells[-1].value == "no spread"
    rows = list(csv.DictReader(io.StringIO(listed(results))))
    assert len(rows) == 4 * 3 * 14
    first = entry["most_exposed"][0]
    assert rows[0]["record"] == str(first["record"])
    assert float(rows[0]["tpr_low"]) == first["tpr"]["low"]
    assert rows[1]["effect"] == ""


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_terminal_table_fits_and_breaks_no_number(width):
    text = printed(sample(), width)
    assert max(map(len, text.splitlines())) <= width
    for each in sample()["methods"]:
        rate = tables.rate(point(strongest(headline(each))))
        for number in (rate.value, rate.interval):
            assert number in text
    for bound in ("ε ≥ 3.91 at δ = 1e-5", "ε ≥ 2.41 at", "ε ≤ 7.99 at δ = 1e-5"):
        assert bound in text
    assert "Positive control: passed." in text


def test_markdown_rows_all_have_as_many_cells_as_the_heading():
    results = only(sample(), 1)
    results["methods"][0]["label"] = "a|b\nc"
    for grid in (tables.audits(results), tables.figures(results)):
        lines = grids.markdown(grid).splitlines()
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert counts == {len(grid.headings) + 1}


# Page -------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert_loads_nothing(page)


def test_ids_are_unique_and_every_reference_has_its_target(page):
    assert_references_resolve(page)


def test_names_are_escaped_everywhere():
    results = only(sample(), 1)
    bad = '<script>alert("x")</script> & $x_1$'
    own = results["methods"][0]
    own |= {"label": bad, "description": bad}
    own["exposure"][0]["attacks"][4]["label"] = bad
    own["audits"][0] |= {"attack_label": bad, "warnings": [bad]}
    results["controls"]["positive"]["text"] = bad
    results["warnings"] = [{"method": None, "text": bad}]
    results["config"]["note"] = "</pre>" + bad
    results["protocol"]["kinds"][0]["kind"] = own["exposure"][0]["kind"] = bad
    text = audits.page(results)
    assert "<script" not in text
    assert "<script" not in audits.text(results)
    assert bad in Page(text).text.replace("\xa0", " ")


def test_only_the_worst_kind_of_each_method_is_open(page):
    tables_part = page[page.index("What each attack finds") : page.index("Audits:")]
    assert tables_part.count("<details>") == 8
    assert tables_part.count("<details open>") == 4


@pytest.mark.parametrize("view", ["page", "markdown"])
def test_limits_warnings_and_reproduction_are_told(views, view):
    for claim in (
        "A small lower bound proves nothing",
        "Only set B gives bounds",
        "Canaries are chosen records",
        "says nothing about published weights",
        "never protects labels",
        "Seeds are fixed",
        "Canaries are 18 % of the training records.",
        "DP-SGD: Below resolution at 0.1 % FPR.",
        "rpjax audit --out out",
        "jax 0.10.2",
    ):
        assert claim in views[view]


def test_an_exponent_is_not_broken_over_two_lines(page):
    whole = '<span class="whole">δ\xa0=\xa01e-5</span>'
    assert page.count(whole) > 10
    bare = re.sub("<svg.*?</svg>", "", page, flags=re.DOTALL).replace(whole, "")
    assert "δ\xa0=\xa01e-5" not in bare


def test_equal_warnings_of_several_audits_are_told_once():
    told = words.warnings(sample())
    assert sum("training_keys" in text for text in told) == 1
    assert told[-1].startswith("Plain; Strategy I (γ = 0.5); Ensemble of 5")


# Figures ----------------------------------------------------------------------------


def test_figures_that_need_noise_or_audits_are_left_out_without_them():
    results = only(sample(), 0)
    results["methods"][0]["audits"] = []
    made = list(audits.all_figures(results))
    assert made == ["roc", "tradeoff", "vulnerability", "by_class", "scores"]
    text = words_of(Page(audits.page(results)).text)
    assert "No method was audited." in text
    assert "Shadow models unlike the target" not in text
    assert "attacks_draws.png" not in audits.text(results)


def test_only_methods_with_noise_are_drawn_against_draws():
    axes = curves.draws(sample()).axes[0]
    assert len(axes.containers) == 2


def test_the_ceiling_is_drawn_dashed_in_the_colour_of_its_method():
    figure = curves.roc(sample())
    for axes in figure.axes:
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        own = [line for line in dashed if len(line.get_xdata()) > 2]
        assert [line.get_color() for line in own] == ["#d55e00"]


def test_a_curve_of_thousands_of_points_is_thinned():
    results = only(sample(), 0)
    found = strongest(headline(results["methods"][0]))
    rates = [k / 5000 for k in range(5001)]
    found["roc"] = {key: rates for key in ("fpr", "tpr", "low", "high")}
    lines = curves.roc(results).axes[0].lines
    assert max(len(line.get_xdata()) for line in lines) < 1200


def test_unknown_ends_of_bands_and_a_vacuous_proof_can_be_drawn():
    results = only(sample(), 3)
    found = strongest(headline(results["methods"][0]))
    found["roc"]["low"] = [None] * len(found["roc"]["fpr"])
    point(found)["low"] = None
    results["methods"][0]["guarantee"]["epsilon"] = 1e8
    for make in (curves.roc, figures.bounds, figures.tradeoff):
        assert len(drawing.svg(make(results))) > 1000
    assert figures.bounds(results).axes[0].get_xscale() == "symlog"


@pytest.mark.parametrize("make", [curves.scores, figures.bounds])
def test_equal_results_give_equal_bytes(make):
    first, second = make(sample()), make(sample())
    assert drawing.svg(first) == drawing.svg(second)
    assert drawing.png(first, 40) == drawing.png(second, 40)
