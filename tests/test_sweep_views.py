"""A sweep's views: every number of the record is there, at its own place."""

import json
import math

import numpy as np
import pytest
from sample_sweep import EPSILONS, SCALE, accuracy, by_epsilon, finish, results, scaled
from sample_sweep import written as write_sweep

from rpjax.errors import InputError
from rpjax.experiments import merging
from rpjax.report import DARK, LIGHT, sweeps
from rpjax.report.sweeps.content import varied
from rpjax.report.sweeps.maps import panels
from rpjax.report.sweeps.write import all_figures, page, text


@pytest.fixture(scope="module")
def scale(tmp_path_factory):
    """Three seeds, two batch sizes, three epochs, two clip norms; two jobs missing."""
    out = tmp_path_factory.mktemp("scale") / "out"
    # a seed of one setting, and every seed of another
    scaled(out, missing=(3, 11, 23, 35))
    return merging.merge(out)


@pytest.fixture(scope="module")
def epsilons(tmp_path_factory):
    out = tmp_path_factory.mktemp("epsilons") / "out"
    by_epsilon(out)
    return merging.merge(out)


def test_rows_stand_in_the_order_of_the_grid_whatever_is_missing(scale):
    found = [
        (row["settings"]["dp.batch_size"], row["settings"]["dp.epochs"])
        for row in scale["summary"]
        if row["settings"]["dp.clip_norm"] == 2.0
    ]
    assert found == [(64, 5), (64, 15), (64, 45), (256, 5), (256, 15)]
    assert "methods" in scale["summary"][0]["settings"]


def test_axes_are_what_changes_besides_seeds(scale, epsilons):
    assert [axis.name for axis in varied(scale)] == list(SCALE)[1:]
    coupled, epochs, _ = varied(scale)
    assert coupled.fields == ("dp.batch_size", "dp.learning_rate")
    assert coupled.labels() == ["64, 0.5", "256, 2"]
    assert coupled.numbers == [64.0, 256.0]
    assert epochs.labels() == ["5", "15", "45"]
    epsilon, _ = varied(epsilons)
    assert epsilon.labels() == ["1", "3", "8", "∞"]
    assert epsilon.numbers == [1.0, 3.0, 8.0, math.inf]


def test_a_heat_map_has_each_mean_in_its_cell(scale):
    first, second = panels(scale)
    assert (first.title, second.title) == ("dp.clip_norm = 1", "dp.clip_norm = 2")
    assert (1, 2) not in second.cells, "no seed of it is there"
    assert len(first.cells) == 6
    assert len(second.cells) == 5
    for panel, clip in ((first, 1.0), (second, 2.0)):
        for (column, row), cell in panel.cells.items():
            size = SCALE["dp.batch_size, dp.learning_rate"][column][0]
            point = {"dp.batch_size": size, "dp.epochs": SCALE["dp.epochs"][row]}
            seeds = [
                accuracy({**point, "dp.clip_norm": clip, "seed": seed})
                for seed in range(3)
            ]
            if (clip, size, point["dp.epochs"]) == (2.0, 64, 15):
                assert cell["n"] == 2
                seeds = seeds[1:]
            assert cell["mean"] == pytest.approx(np.mean(seeds))


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_heat_map_writes_means_and_frames_the_highest(scale, theme):
    figure = sweeps.heat_map(scale, theme)
    left, right = figure.axes[:2]
    written = [t.get_text() for t in left.texts if t.get_text()]
    assert len(written) == 12, "a mean and an interval in each cell"
    column, row = 1, 2
    best = [t for t in left.texts if t.get_position()[0] == column]
    best = [t.get_text() for t in best if round(t.get_position()[1]) == row]
    mean = accuracy(
        {"dp.batch_size": 256, "dp.epochs": 45, "dp.clip_norm": 1, "seed": 1}
    )
    assert best[0] == f"{100 * mean:.1f}"
    framed = [p for p in left.patches if p.get_linewidth() == 2.2]
    assert [p.get_xy() for p in framed] == [(0.5, 1.5)]
    assert not [p for p in right.patches if p.get_linewidth() == 2.2]
    hatched = [p.get_xy() for p in right.patches if p.get_hatch()]
    assert hatched == [(0.5, 1.5)], "what is missing is no number"
    assert [t.get_text() for t in left.get_xticklabels()] == ["64, 0.5", "256, 2"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["5", "15", "45"]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_curve_has_equal_ratios_and_infinity_apart(epsilons, theme):
    accuracy_axes, gap = sweeps.curve(epsilons, theme).axes
    assert accuracy_axes.get_xlabel() == "dp.epsilon"
    ticks = accuracy_axes.get_xticks()
    np.testing.assert_allclose(ticks[:3], np.log2([1, 3, 8]))
    assert ticks[3] > ticks[2]
    named = [t.get_text() for t in accuracy_axes.get_xticklabels()]
    assert named == ["1", "3", "8", "∞"]
    lines = accuracy_axes.get_lines()
    joined = [line for line in lines if line.get_label().startswith("dp.clip_norm")]
    assert [line.get_label() for line in joined] == [
        *("dp.clip_norm = 1", "dp.clip_norm = 2"),
    ]
    for line, clip in zip(joined, (1.0, 2.0), strict=True):
        means = [100 * (0.905 - 0.3 / e + 0.02 * clip) for e in (1, 3, 8)]
        np.testing.assert_allclose(line.get_ydata(), means)
    beyond = [
        line
        for line in lines
        if line.get_markersize() == 5.5 and min(line.get_xdata()) > ticks[2] + 0.3
    ]
    assert [len(line.get_xdata()) for line in beyond] == [1, 1], "joined to nothing"
    dots = [line for line in lines if line.get_markersize() == 3]
    assert sum(len(line.get_ydata()) for line in dots) == 16
    assert gap.get_title(loc="left") == "Generalisation gap"


def test_epsilon_noise_and_what_they_mean_are_in_every_view(scale, epsilons):
    for view in (page(epsilons), text(epsilons)):
        for word in ("none", "∞", "1.333", "add or remove one record", "1e-5", "PLD"):
            assert word in view, word
        assert "chosen by private records" in " ".join(view.split())
    assert "missing: 3, 11, 23, 35" in text(scale)
    assert text(scale).count("| dpsgd |") == 11


def test_views_that_a_sweep_has_too_few_axes_for_are_left_out(tmp_path):
    grid = {"seed": [0, 1], "dp.clipping": ["flat", "automatic"]}
    asked = write_sweep(tmp_path / "out", grid)
    for number in range(len(asked.settings())):
        finish(tmp_path / "out", number, results("dpsgd", 0.5 + number / 10))
    merged = merging.merge(tmp_path / "out")
    assert list(all_figures(merged)) == ["curve"]
    (accuracy_axes, _) = sweeps.curve(merged).axes
    labels = [t.get_text() for t in accuracy_axes.get_xticklabels()]
    assert labels == []
    files = sweeps.write(merged, tmp_path / "out")
    assert [file.name for file in files] == [
        *("sweep.html", "sweep.md", "sweep_curve.png", "sweep_curve.svg"),
    ]


def test_many_lines_are_no_curve(scale, epsilons):
    assert list(all_figures(scale)) == ["heat_map", "curve"]
    assert list(all_figures(epsilons)) == ["heat_map", "curve"]
    wide = {**EPSILONS, "dp.clip_norm": [float(n) for n in range(1, 10)]}
    grown = json.loads(json.dumps(epsilons))
    grown["axes"][2]["options"] = [[value] for value in wide["dp.clip_norm"]]
    row = grown["summary"][0]
    grown["summary"] += [
        {**row, "settings": {**row["settings"], "dp.clip_norm": value}}
        for value in wide["dp.clip_norm"][2:]
    ]
    assert list(all_figures(grown)) == ["heat_map"]


def test_a_sweep_of_another_format_is_refused(tmp_path):
    file = tmp_path / "sweep.json"
    for content in ("{}", '{"schema": "rpjax.sweep/1"}', "[", "[]"):
        file.write_text(content)
        with pytest.raises(InputError, match=r"cannot be read|schema is"):
            sweeps.load(file)
