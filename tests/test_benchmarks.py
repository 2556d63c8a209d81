"""Benchmarks: each runs, its record says how it came about, and its figure is drawn."""

import dataclasses
import importlib
import io
import os
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from benchmarks import BENCHMARKS, commands
from benchmarks.benchmark import find, silent
from benchmarks.drawing import draw
from benchmarks.record import read, record, write
from rpjax.data.stored import StoredImages

FOLDER = Path(__file__).parents[1] / "benchmarks"
FIELDS = {
    *("schema", "name", "date", "command", "commit", "device", "load_average"),
    *("versions", "seed", "settings", "rows"),
}
SMALL = {"model": "tiny", "batch_size": 8, "records": 32, "rounds": 1}
QUICK = {**SMALL, "turn_seconds": 0.01}
TINY = {
    "steps": {**QUICK, "sizes": ("digits",), "methods": ("plain", "dpsgd")},
    "dpsgd": {
        **QUICK,
        "size": "digits",
        "engines": ("bookkeeping",),
        "libraries": ("fastDP",),
        "environments": Path("nowhere"),
        "steps": 1,
        "threads": 1,
    },
    "frameworks": {
        "quick": True,
        "libraries": ("rpjax", "Objax"),
        "environments": Path("nowhere"),
        "epochs": 1,
        "threads": 1,
    },
    "pytorch": {**QUICK, "size": "digits", "modes": ("eager",), "threads": 1},
    "epoch": {**QUICK, "size": "digits", "members": (1, 2), "lists": "halves"},
    "ensembles": {
        **QUICK,
        "members": (2,),
        "mappings": ("auto",),
        "convolutions": ("auto",),
        "size": "digits",
    },
    "members": {"model": "tiny", "sizes": (8,), "members": 2, "batch": 4, "rounds": 1},
    "input_pipeline": {
        **{name: value for name, value in SMALL.items() if name != "batch_size"},
        "batch_size": 4,
        "workers": (0, 1),
        "sides": (20, 40),
        "image_size": 16,
        "steps": 2,
    },
    "compile": {**SMALL, "size": "digits", "methods": ("strategy1",)},
    "scaling": {
        **QUICK,
        "size": "digits",
        "what": ("plain", "dpsgd", "bank"),
        "batch_size": 64,
        "records": 256,
        "devices": (1, 2),
    },
    "roofline": {
        **{name: value for name, value in QUICK.items() if name != "model"},
        "size": "digits",
        "models": ("tiny",),
        "side": 64,
        "megabytes": 1,
    },
    "generators": {
        **QUICK,
        "size": "digits",
        "generators": ("threefry2x32", "no such"),
    },
    "guarantees": {"data": ("digits",), "ratios": (1.1,), "coordinates": (10,)},
    "features": {
        "data": "digits",
        "trunks": ("random:4",),
        "epsilons": (8.0,),
        "net_epsilons": (),
        "heads": ("linear",),
        "runs": 1,
        "linear_steps": 2,
        "net_steps": 1,
        "train_records": 200,
    },
    "reconstruction": {"quick": True},
    "imbalance": {"data": "digits", "quick": True},
    "transfer": {"quick": True},
    "noise": {"normals": 1_000, "draws": 2, "rounds": 1},
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """name -> the record of a tiny run, in a file; made when first asked for."""
    folder, made = tmp_path_factory.mktemp("records"), {}

    def of(name):
        if name == "pytorch":
            pytest.importorskip("torch")
        if name not in made:
            benchmark = find(name)
            settings = benchmark.settings(**TINY[name])
            rows = benchmark.measure(settings, silent)
            made[name] = folder / f"{name}.json"
            write(made[name], record(name, settings, rows))
        return made[name]

    return of


@pytest.fixture(autouse=True)
def quick_processes(monkeypatch):
    """Processes of their own compile as quickly as this one does."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


every_benchmark = pytest.mark.parametrize("name", BENCHMARKS)


def test_every_benchmark_is_tried_here():
    assert TINY.keys() == BENCHMARKS.keys()


@every_benchmark
def test_a_record_says_how_its_numbers_came_about(name, records):
    value = read(records(name))
    assert value.keys() == FIELDS
    assert value["name"] == name
    assert value["device"]["platform"] == "cpu"
    assert value["settings"].keys() == {
        field.name for field in dataclasses.fields(find(name).settings)
    }
    assert value["rows"]
    for row in value["rows"]:
        if row.get("seconds") is not None:
            low, high = row["spread"]
            assert 0 < low <= row["seconds"] <= high
            assert row["n"] == 1


@every_benchmark
def test_a_record_is_printed_and_drawn(name, records, tmp_path):
    file = records(name)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(commands.table(find(name), read(file)["rows"]))
    headers = [header for header, _ in find(name).columns]
    assert all(word in console.export_text() for word in headers[0].split())
    written = draw(file, tmp_path)
    assert {path.name for path in written} == {
        f"{name}-{theme}.{kind}"
        for theme in ("light", "dark")
        for kind in ("svg", "png")
    }
    light, dark = (
        matplotlib.image.imread(tmp_path / f"{name}-{theme}.png")
        for theme in ("light", "dark")
    )
    assert light[0, 0, 0] > 0.9 > 0.2 > dark[0, 0, 0]
    assert not list(tmp_path.glob("*.tmp"))


# ------------------------------------------------------------------- what they measure


def test_steps_are_relative_to_plain_and_dpsgd_has_more_slots(records):
    plain, private = read(records("steps"))["rows"]
    assert plain["relative"] == plain["relative_memory"] == 1
    assert private["relative"] == pytest.approx(private["seconds"] / plain["seconds"])
    assert private["slots"] > plain["slots"] == 8
    assert private["memory_bytes"] > plain["memory_bytes"]


def test_dpsgd_is_compared_with_libraries_or_said_why_not(records):
    plain, engine, missing = read(records("dpsgd"))["rows"]
    assert (plain["library"], plain["way"]) == ("rpjax", "plain")
    assert engine["relative"] == pytest.approx(engine["seconds"] / plain["seconds"])
    assert engine["examples_per_second"] == pytest.approx(8 / engine["seconds"])
    assert engine["clipped_sum_differs_by"] < 1e-6 < engine["tolerance"] < 1e-3
    assert engine["first_step_seconds"] > engine["seconds"]
    assert engine["memory_bytes"] > plain["memory_bytes"]
    assert engine["versions"].keys() == {"jax", "rpjax"}
    assert missing["library"] == "fastDP"
    assert missing["reason"].startswith("not installed here; --prepare makes")


def test_the_cost_of_members_is_told_for_one_member(records):
    single, ensemble, bank = read(records("ensembles"))["rows"]
    assert [row["what"] for row in (single, ensemble, bank)] == [
        *("single", "ensemble", "bank")
    ]
    for row in (ensemble, bank):
        assert row["members"] == 2
        assert row["relative"] == pytest.approx(row["seconds"] / single["seconds"] / 2)


def test_members_are_mapped_in_every_way_but_not_unrolled_when_they_are_many():
    module = importlib.import_module("benchmarks.ensembles")
    ways = module.ways(module.Ensembles(members=(4, 64), most_unrolled=4))
    kinds = ("xla", "canonical", "im2col")
    few = {(way.mapping, way.convolution) for way in ways if way.members == 4}
    many = {(way.mapping, way.convolution) for way in ways if way.members == 64}
    assert few == {
        ("auto", "auto"),
        *((m, c) for m in ("vmap", "map", "unroll") for c in kinds),
    }
    assert few - many == {("unroll", kind) for kind in kinds}
    assert sum(way.bank for way in ways) == 2
    assert ways[0] == module.SINGLE


def test_an_epoch_is_all_steps_of_a_members_own_list(records):
    one, two = read(records("epoch"))["rows"]
    assert one["records_per_member"] == two["records_per_member"] == 16
    assert one["steps_per_epoch"] == 2
    assert two["relative"] == pytest.approx(two["seconds"] / one["seconds"])


def test_whole_epochs_are_trained_and_timed():
    benchmark = find("epoch")
    settings = benchmark.settings(**(TINY["epoch"] | {"epochs": 3, "members": (1,)}))
    heard = []
    (row,) = benchmark.measure(settings, heard.append)
    assert row["wall_seconds"] > 3 * row["seconds"] > 0
    assert heard[-1].endswith("step 6 of 6")


def test_images_are_decoded_and_trained_on_in_every_way(records):
    rows = read(records("input_pipeline"))["rows"]
    ways = ["plain loop", "threads", "1 process"]
    assert [row["way"] for row in rows if row["what"] == "decode"] == ways
    ways.insert(1, "no decoding")
    assert [row["way"] for row in rows if row["what"] == "train"] == ways
    loop = {row["what"]: row["seconds"] for row in rows if row["way"] == "plain loop"}
    for row in rows:
        assert row["relative"] == pytest.approx(row["seconds"] / loop[row["what"]])
        images = 4 if row["what"] == "train" else 1
        assert row["images_per_second"] == pytest.approx(images / row["seconds"])
        if row["what"] == "train":
            part = row["waiting_seconds"] / row["seconds"]
            assert row["waiting_share"] == pytest.approx(part)


def test_steps_wait_for_all_of_a_loop_and_for_less_of_threads(monkeypatch):
    """An image takes 40 ms, a step four of them, and four threads work on four steps.

    Had a pause filled the pipeline, the steps would not wait at all.
    """
    decoded = StoredImages._decoded

    def slowly(images, row):
        time.sleep(0.04)
        return decoded(images, row)

    monkeypatch.setattr(StoredImages, "_decoded", slowly)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    settings = TINY["input_pipeline"] | {"workers": (0,), "records": 8, "steps": 4}
    benchmark = find("input_pipeline")
    rows = benchmark.measure(benchmark.settings(**settings), silent)
    waits = {r["way"]: r["waiting_seconds"] for r in rows if r["what"] == "train"}
    assert waits["no decoding"] == 0
    assert waits["plain loop"] >= 4 * 0.04
    assert 0.5 * 0.04 < waits["threads"] < 2.5 * 0.04


def test_the_first_step_is_faster_with_a_warm_cache(records):
    cold, warm = read(records("compile"))["rows"]
    assert (cold["cache"], warm["cache"]) == ("cold", "warm")
    assert warm["compile_seconds"] < cold["compile_seconds"]
    for row in (cold, warm):
        names = ("trace", "lower", "compile", "rest")
        parts = [row[f"{part}_seconds"] for part in names]
        assert sum(parts) == pytest.approx(row["seconds"])
        assert min(parts) > 0


def test_two_devices_share_the_work_and_sum_the_gradient_once(records):
    rows = {(r["what"], r["devices"]): r for r in read(records("scaling"))["rows"]}
    size = 4 * (2_154 + 3)  # the tiny net's float32 parameters, and three figures
    assert rows["plain", 1]["collectives"] == rows["bank", 2]["collectives"] == {}
    assert rows["plain", 2]["collectives"] == {"all-reduce": 1}
    assert rows["plain", 2]["collective_bytes"] == size
    for what in ("plain", "dpsgd", "bank"):
        assert 0.8 < rows[what, 2]["ideal_share"] < 1.05
    assert rows["bank", 2]["along_members"] == 2


def test_on_real_devices_steps_are_timed_too(records):
    """These eight share two cores, so their times are only there."""
    module = importlib.import_module("benchmarks.scaling")
    counted = [row for row in read(records("scaling"))["rows"] if row["what"] == "bank"]
    settings = module.Scaling(**(TINY["scaling"] | {"what": ("bank",)}))
    one, two = module._with_times(settings, counted, silent)
    assert one["relative"] == 1
    assert two["relative"] == pytest.approx(two["seconds"] / one["seconds"])
    assert two["flops"] == counted[1]["flops"]


def test_a_peak_is_asked_of_devices_that_keep_count():
    module = importlib.import_module("benchmarks.steps")
    settings = module.Steps(**TINY["steps"])
    assert module._peak(settings, "digits", "plain") is None  # a CPU keeps none


def test_the_roof_is_the_lower_of_two(records):
    (row,) = read(records("roofline"))["rows"]
    roof = min(row["peak_flops"], row["intensity"] * row["peak_bytes"])
    reached = row["flops"] / row["seconds"]
    assert row["fraction_of_roofline"] == pytest.approx(reached / roof)
    assert row["fraction_of_peak"] == pytest.approx(reached / row["peak_flops"])
    # 3x3 convolutions of 8 images: stem 1 to 16, then 16 to 8 and 8 to 8, backwards too
    forward = 2 * 8 * 64 * 9 * (1 * 16 + 16 * 8 + 8 * 8)
    assert 2.5 * forward < row["flops"] < 4.5 * forward


def test_a_generator_that_does_not_exist_is_reported_and_stops_nothing(records):
    rows = {row["generator"]: row for row in read(records("generators"))["rows"]}
    assert "error" in rows.pop("no such")
    assert rows.keys() == {"no noise", "as rpjax draws", "threefry2x32"}
    assert all(row["relative"] > 0 for row in rows.values())


def test_losses_are_compared_at_one_epsilon_and_classes_attacked(records):
    rows = read(records("imbalance"))["rows"]
    trained = [row for row in rows if row["what"] == "classes"]
    assert [row["loss"] for row in trained] == [
        *("cross-entropy", "cross-entropy, adjusted after", "balanced softmax"),
        "clipped by class",
    ]
    for row in trained:
        assert 7.9 < row["epsilon"] <= 8.001
        recalls = [each["value"] for each in row["recalls"]]
        assert row["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    assert trained[0]["gain"] == {"value": 0, "low": 0, "high": 0}
    (attack,) = [row for row in rows if row["what"] == "attack"]
    assert len(attack["auc"]) == 10
    assert attack["rare"]["low"] <= attack["rare"]["value"] <= attack["rare"]["high"]


def test_counts_that_are_released_are_paid_for_with_noise():
    module = importlib.import_module("benchmarks.imbalance")
    settings = module.Imbalance(private_steps=3, count_noise=1.0)
    alone = module._multiplier(settings, 1000, 100, ())
    both = module._multiplier(settings, 1000, 100, (module.Release(1.0),))
    assert both > 1.02 * alone


def test_a_public_start_stands_beside_a_random_one(records):
    scratch, frozen = read(records("transfer"))["rows"]
    assert (scratch["way"], frozen["way"]) == ("from scratch", "2 groups frozen")
    assert scratch["trained_parameters"] == scratch["parameters"]
    # of four channels: a norm's scale and bias, and the head of five classes
    assert frozen["trained_parameters"] == 2 * 4 + (4 + 1) * 5
    assert scratch["noise_multiplier"] == frozen["noise_multiplier"]
    for row in (scratch, frozen):
        assert len(row["accuracies"]) == 2
        assert 0 <= row["low"] <= row["mean"] <= row["high"] <= 1
    differences = np.subtract(frozen["accuracies"], scratch["accuracies"])
    assert frozen["gain"]["mean"] == pytest.approx(differences.mean())
    assert "gain" not in scratch


def test_each_start_has_the_rate_that_is_best_on_other_records(records):
    record = read(records("transfer"))
    scratch, frozen = record["rows"]
    for row in (scratch, frozen):
        assert [each["rate"] for each in row["by_rate"]] == [1.0, 2.0]
        best = max(row["by_rate"], key=lambda each: each["mean"])
        assert row["rate"] == best["rate"]
    assert frozen["chosen"]
    assert "chosen" not in scratch


# -------------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize("model", ["tiny", "resnet8"])
def test_pytorchs_net_is_ours(model):
    pytest.importorskip("torch")
    module = importlib.import_module("benchmarks.pytorch")
    size = "digits" if model == "tiny" else "cifar10"
    same = module.differences(module.PyTorch(model=model, size=size))
    assert same["logits"] < 1e-4
    assert same["gradients"] < 1e-4
    if model == "resnet8":
        assert same["parameters"] == 77_850


def test_a_net_that_differs_is_seen(monkeypatch):
    pytest.importorskip("torch")
    from benchmarks import torch_net

    module = importlib.import_module("benchmarks.pytorch")
    monkeypatch.setattr(torch_net, "EPSILON", 1e-2)
    same = module.differences(module.PyTorch(model="tiny", size="digits"))
    assert same["logits"] > 1e-4


def test_both_frameworks_are_timed_with_as_many_threads(records):
    rows = read(records("pytorch"))["rows"]
    assert [row["framework"] for row in rows] == ["rpjax", "PyTorch", "PyTorch"]
    assert {row["threads"] for row in rows} == {1}
    assert min(row["relative"] for row in rows[1:]) == 1
