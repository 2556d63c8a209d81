import io
import json
import re

import matplotlib
import pytest
from reading import (
    Page,
    assert_loads_nothing,
    assert_references_resolve,
    words_of,
)
from rich.console import Console
from sample_results import attack, crowded, extreme, sample

from rpjax import report
from rpjax.errors import InputError
from rpjax.report import axes, drawing, placement, tables, words
from rpjax.report.results import below_resolution, largest_tpr, strongest


@pytest.fixture(scope="module")
def page():
    return report.page(sample())


def printed(results, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.table(results, width))
    return console.export_text()


@pytest.fixture(scope="module")
def views(page):
    return {
        "page": words_of(Page(page).text),
        "markdown": words_of(report.text(sample())),
        "wide": words_of(printed(sample(), 140)),
    }


# Tables -----------------------------------------------------------------------------


def test_rows_hold_the_numbers_of_the_file_and_no_others():
    for row, method in zip(report.rows(sample()), sample()["methods"], strict=True):
        accuracy = method["utility"]["test_accuracy"]
        found = strongest(method["exposure"][0])
        assert row.accuracy.value == f"{100 * accuracy['value']:.1f} %"
        assert float(row.attack.value) == pytest.approx(found["auc"]["value"], abs=5e-4)
        low, high = json.loads(row.attack.interval)
        assert low == pytest.approx(found["auc"]["low"], abs=5e-4)
        assert high == pytest.approx(found["auc"]["high"], abs=5e-4)
        assert row.time.value == f"{method['cost']['relative_time']:.2f}×"


@pytest.mark.parametrize("name", ["page", "markdown", "wide"])
def test_every_method_and_each_of_its_numbers_is_in_every_view(views, name):
    text = views[name]
    for row in report.rows(sample()):
        cells = (row.accuracy, row.gap, row.attack, row.tpr, row.noise_off, row.memory)
        assert row.method.value in text or name == "wide"
        for cell in cells:
            assert cell.value in text
            assert cell.interval in text


def test_the_strongest_attack_is_the_one_with_the_largest_auc_on_the_first_query():
    results = sample()
    assert report.rows(results)[1].attack == (
        "0.587",
        "[0.557, 0.616]",
        "Shadow models",
    )
    entry = results["methods"][1]["exposure"][0]
    entry["attacks"][1]["auc"]["value"] = 0.61
    assert report.rows(results)[1].attack.value == "0.610"
    assert report.rows(results)[1].attack.note == "Confidence threshold"


def test_another_attack_that_finds_more_members_is_the_one_reported_and_named():
    results = sample()
    attacks = results["methods"][0]["exposure"][0]["attacks"]
    weaker = min(attacks, key=lambda found: found["auc"]["value"])
    next(e for e in weaker["tpr_at"] if e["target_fpr"] == 0.01)["tpr"] = 0.77
    row = report.rows(results)[0]
    assert row.tpr.value == "77.0 %"
    assert row.tpr.note == tables.short(weaker["label"])
    assert row.attack.note != row.tpr.note


def test_a_rate_below_resolution_says_how_many_false_positives_it_has():
    entry = largest_tpr(extreme()["methods"][0]["exposure"][0], 0.01)[1]
    assert below_resolution(entry)
    assert report.rows(extreme())[0].tpr.note == "† 0 FP"
    assert "†" in " ".join(tables.notes(extreme()))
    assert "†" not in " ".join(tables.notes(sample()))


def test_noise_off_is_the_strongest_attack_of_the_t4_entry():
    results = sample()
    assert report.rows(results)[0].noise_off.value == "–"
    best = strongest(results["methods"][1]["exposure"][1])["auc"]["value"]
    assert report.rows(results)[1].noise_off.value == f"{best:.3f}"


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_table_fits_and_breaks_no_number(width):
    text = printed(sample(), width)
    assert max(map(len, text.splitlines())) <= width
    for row in report.rows(sample()):
        for cell in (row.accuracy, row.attack, row.tpr):
            assert cell.value in text
            assert cell.interval in text
        assert row.noise_off.value in text


def test_markdown_rows_all_have_as_many_cells_as_the_heading():
    results = sample()
    results["methods"][0]["label"] = "a|b\nc"
    lines = [line for line in tables.markdown(results).splitlines() if line[:1] == "|"]
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert counts == {len(tables.HEADINGS) + 1}


# Guarantees -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["page", "markdown", "wide"])
def test_an_epsilon_never_stands_without_delta_and_adjacency(views, name):
    text = views[name]
    if name == "wide":
        # side by side, cells of other columns stand between the lines of this one
        text = re.sub(r"\[.*?\]|\d[\d.]*×|gap [\d.]+ %|Shadow models", "", text)
    found = [text[hit.start() :][:110] for hit in re.finditer("ε = ", text)]
    assert found
    for passage in found:
        assert re.match(r"ε = [\d.]+ at δ = \S+", words_of(passage)), passage
        assert re.search("add(ing)? or|replace", words_of(passage)), passage


def test_a_printed_bound_is_never_below_the_proved_one():
    results = sample()
    results["methods"][4]["guarantee"]["epsilon"] = 7.98000001
    assert "ε = 7.99 at δ = 1e-5" in report.rows(results)[4].guarantee.value


def test_a_method_without_a_proof_says_none():
    assert report.rows(sample())[0].guarantee.value == "none"
    assert "No guarantee." in words.verdict(sample()["methods"][0])


def test_a_gaussian_guarantee_without_epsilon_shows_mu_and_adjacency():
    results = sample()
    proof = results["methods"][4]["guarantee"]
    proof |= {"kind": "gdp", "epsilon": None, "delta": None, "mu": 1.2}
    cell = report.rows(results)[4].guarantee
    assert cell.lines() == ["μ = 1.20 (Gaussian DP),", "add or remove one record"]


def test_epsilons_for_different_neighbours_are_never_side_by_side_without_a_word():
    results = sample()
    warning = "Epsilons of different neighbours are not comparable: replace"
    told = lambda: " ".join([*tables.notes(results), *words.summary(results)])
    assert warning not in told(), "one epsilon stands alone"
    own = results["methods"][4]["guarantee"]
    proof = results["methods"][1]["guarantee"] = dict(own)
    proof["adjacency"] = "replace one record's features, labels equal"
    for view in (report.page(results), report.text(results), printed(results, 140)):
        assert warning in words_of(view)
        assert "labels equal; add or remove one record are" in words_of(view)
    proof["adjacency"] = own["adjacency"]
    assert warning not in told()


# Page -------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert_loads_nothing(page)


def test_ids_are_unique_and_every_reference_has_its_target(page):
    assert_references_resolve(page)


def test_names_are_escaped_everywhere():
    results = sample()
    bad = '<script>alert("x")</script> & $x_1$'
    results["methods"][0] |= {"label": bad, "description": bad}
    results["config"]["note"] = "</pre>" + bad
    results["data"]["name"] = bad
    text = report.page(results)
    assert "<script" not in text
    assert "<script" not in report.text(results)
    assert bad in Page(text).text.replace("\xa0", " ")


def test_the_verdict_says_when_an_attack_is_no_better_than_guessing():
    plain, *_, dpsgd = sample()["methods"]
    assert "not distinguished from guessing" in words.verdict(dpsgd)
    assert "not distinguished from guessing" not in words.verdict(plain)


def test_every_limit_is_on_the_page(page):
    text = words_of(Page(page).text)
    for claim in ("proves nothing", "never protects labels", "not comparable"):
        assert claim in text
    assert "One seed." in text
    assert "noise seed of this run is fixed" in text
    results = sample() | {"noise_seed": "secret"}
    assert "noise seed of this run is fixed" not in report.text(results)


def test_every_attack_on_every_query_is_on_the_page(page):
    text = words_of(Page(page).text)
    for method in sample()["methods"]:
        for entry in method["exposure"]:
            for found in entry["attacks"]:
                assert f"{found['auc']['value']:.3f}" in text


# Figures ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [report.tradeoff, report.roc, report.cost])
def test_equal_results_give_equal_bytes(make):
    first, second = make(sample()), make(sample())
    assert drawing.svg(first) == drawing.svg(second)
    assert drawing.png(first, 40) == drawing.png(second, 40)


def test_svg_carries_no_date_and_no_background():
    text = drawing.svg(report.cost(sample()))
    assert "<dc:date>" not in text
    assert "fill: #ffffff" not in text


def test_times_of_nets_that_are_computed_differently_say_so():
    """Else Strategy I might look faster than plain training."""
    results = sample()
    for method, way in zip(results["methods"], ("a", "a", "b", None), strict=False):
        method["cost"]["convolution"] = way
    one, other, third = (m["label"] for m in results["methods"][:3])
    told = f"not computed alike: {one}, {other} by a; {third} by b."
    assert told in words.captions(results)["cost"]
    for method in results["methods"]:
        method["cost"]["convolution"] = "a"
    assert "computed alike" not in words.captions(results)["cost"]


def test_making_figures_leaves_the_settings_of_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    drawing.svg(report.tradeoff(sample(), report.DARK))
    assert dict(matplotlib.rcParams) == before


def test_labels_cover_neither_each_other_nor_the_frame(monkeypatch):
    placed = []
    place = placement.place_labels
    keep = lambda *given: placed.extend(place(*given))
    monkeypatch.setattr("rpjax.report.figures.place_labels", keep)
    report.tradeoff(sample())
    assert len(placed) == 5
    width, height = 72 * 7.2, 72 * 4.6
    for index, box in enumerate(placed):
        assert all(box.overlap(other) == 0 for other in placed[:index])
        assert min(box.left, box.bottom) > 0
        assert box.right < width
        assert box.top < height


def test_each_method_keeps_its_look_whoever_it_is_compared_with():
    results = sample()
    all_five = drawing.styles(results)
    results["methods"] = results["methods"][::-1][:2]
    assert drawing.styles(results) == [all_five[4], all_five[3]]
    assert len(set(drawing.styles(crowded(24)))) == 24


def test_two_settings_of_one_method_look_different():
    results = sample()
    results["methods"] = [results["methods"][1]] * 3
    assert len(set(drawing.styles(results))) == 3


def test_thinning_a_curve_moves_it_by_less_than_a_pixel():
    curve = attack("salem", "Shadow models", 1.0, n=20_000)["roc"]
    kept = axes.thinned(curve["fpr"], curve["tpr"], 1 / 20_000)
    assert len(kept) < 1500
    assert kept[-1] == 20_000
    last, kept = 0, set(kept)
    for index in range(1, 20_000):
        last = index if index in kept else last
        for key in ("fpr", "tpr"):
            gone = max(curve[key][index], 5e-5) / max(curve[key][last], 5e-5)
            assert gone < 1.0201


def test_tiny_sets_and_missing_parts_give_a_whole_report(tmp_path):
    files = report.write(extreme(), tmp_path)
    assert {file.name for file in files} >= {"report.html", "roc.png", "roc.svg"}
    assert all(file.stat().st_size > 1000 for file in files)


def test_many_methods_are_named_in_a_legend_instead_of_beside_their_points():
    named = {text.get_text() for text in report.tradeoff(crowded()).legends[0].texts}
    assert len(named) == 12
    assert not report.tradeoff(crowded(3)).legends


def test_without_any_attack_the_figures_of_attacks_are_left_out():
    results = sample()
    for method in results["methods"]:
        method["exposure"] = []
    assert list(report.all_figures(results)) == ["training", "cost"]
    assert "roc.png" not in report.text(results)
    assert "Not attacked." in report.text(results)


# Reading and writing ----------------------------------------------------------------


def test_a_report_is_written_whole_and_can_be_replaced(tmp_path):
    (tmp_path / "report.md").write_text("an earlier report")
    files = report.write(sample(), tmp_path)
    assert files[0] == tmp_path / "report.html"
    present = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert present == set(files)
    for path in re.findall(r"\]\(([^)]+)\)", files[1].read_text("utf-8")):
        assert (tmp_path / path).is_file()


def test_a_report_equals_the_one_made_from_the_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(sample()), "utf-8")
    assert report.load(path) == report.load(tmp_path) == sample()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "schema is None"),
        ('{"schema": "other/1"}', "schema is 'other/1'"),
        ('{"schema": "rpjax.results/2"}', "upgrade rpjax"),
        ('{"schema": "rpjax.results/1"}', "results.json.created: missing"),
        ('{"schema": NaN}', "NaN is not JSON"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path, contents, message):
    path = tmp_path / "results.json"
    path.write_text(contents, "utf-8")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        report.load(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        report.load(tmp_path / "nowhere.json")


def _drop(results):
    del results["methods"][2]["utility"]["test_accuracy"]["high"]


def _bare_epsilon(results):
    results["methods"][4]["guarantee"]["adjacency"] = None


def _no_delta(results):
    results["methods"][4]["guarantee"]["delta"] = None


def _broken_curve(results):
    results["methods"][0]["exposure"][0]["attacks"][0]["roc"]["tpr"].pop()


def _infinite(results):
    results["methods"][0]["cost"]["relative_time"] = float("inf")


def _true(results):
    results["seed"] = True


def _empty(results):
    results["methods"] = []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, "methods[2].utility.test_accuracy.high: missing"),
        (_bare_epsilon, "methods[4].guarantee.adjacency: null beside an epsilon"),
        (_no_delta, "methods[4].guarantee.delta: null beside an epsilon"),
        (_broken_curve, "fpr, tpr have lengths [720, 719]"),
        (_infinite, "relative_time: got inf"),
        (_true, "seed: got bool, expected int"),
        (_empty, "methods: empty"),
    ],
)
def test_damaged_results_are_refused_and_nothing_is_written(tmp_path, damage, message):
    results = sample()
    damage(results)
    with pytest.raises(InputError, match=re.escape(message)):
        report.write(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("here first")
    with pytest.raises(InputError, match="out: cannot write"):
        report.write(sample(), tmp_path / "out")
