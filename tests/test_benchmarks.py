"""Benchmarks: each runs, its record says how it came about, and its figure is drawn."""

import dataclasses
import doctest
import importlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from benchmarks import BENCHMARKS, commands, gpu_queue, processes, timing
from benchmarks.benchmark import find, silent
from benchmarks.drawing import draw
from benchmarks.hlo import Collective, collectives
from benchmarks.record import command, commit, read, record, write
from benchmarks.workloads import halves, learner, random_pixels, training_program
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
        "what": ("plain", "bank"),
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
    for what in ("plain", "bank"):
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
        *("cross-entropy", "cross-entropy, adjusted after", "balanced softmax")
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


# --------------------------------------------------------------------------- timing


def test_clocks_take_turns_and_a_ratio_is_one_of_rounds():
    heard = []
    ticks = {"a": iter([1.0, 10.0, 1.0]), "b": iter([2.0, 20.0, 2.0])}

    def clock(name):
        return lambda: heard.append(name) or next(ticks[name])

    times = timing.in_turns({name: clock(name) for name in "ab"}, 3, silent)
    assert "".join(heard) == "abbaab"
    assert times == {"a": [1, 10, 1], "b": [2, 20, 2]}
    assert timing.ratio(times["b"], times["a"]) == 2
    assert timing.summary(times["a"]) == {"seconds": 1, "spread": [1, 10], "n": 3}


def test_a_turn_is_as_many_steps_as_fit_and_no_more_than_there_are():
    asked = []

    def stopwatch(steps):
        asked.append(steps)
        return 0.1 * steps

    timed = timing.steps_of(stopwatch, 100, 1.0)
    assert timed.count == 10
    assert asked == [1, 4, 10]  # warmed up before it is believed
    assert timed.clock() == pytest.approx(0.1)
    assert timing.steps_of(stopwatch, 3, 1.0).count == 3


def test_a_clock_waits_for_what_it_calls():
    class Slow:
        def block_until_ready(self):
            time.sleep(0.02)

    assert timing.calls_of(lambda: Slow(), ())() >= 0.02


def test_a_process_of_its_own_has_its_own_variables_and_cores(monkeypatch):
    monkeypatch.delenv("OF_ITS_OWN", raising=False)
    with processes.Worker({"OF_ITS_OWN": "yes"}, threads=1) as worker:
        assert worker(os.getenv, "OF_ITS_OWN") == "yes"
        assert worker(os.getpid) != os.getpid()
        assert worker(processes.cores) == 1
    assert "OF_ITS_OWN" not in os.environ


def test_a_process_of_its_own_ends_with_whoever_started_it():
    code = (
        "import os, signal\n"
        "from benchmarks.processes import Worker\n"
        "if __name__ == '__main__':\n"
        "    print(Worker()(os.getpid), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=FOLDER.parent
    )
    worker = int(ended.stdout)
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker outlived its parent")


def test_collectives_are_counted_with_their_bytes():
    text = (
        "%g = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%a, %b), to_apply=%add\n"
        "%h = f32[8]{0} all-gather-start(%c)\n%i = f32[8]{0} all-gather-done(%h)\n"
        "%j = (u8[16]{0}, pred[]) all-to-all(%d, %e)"
    )
    assert collectives(text) == [
        Collective("all-reduce", 32),
        Collective("all-gather", 32),
        Collective("all-to-all", 17),
    ]


def test_the_program_that_is_counted_is_the_one_that_fit_runs(small):
    one = learner("plain", "tiny", 8)
    program, stopwatch = training_program(one, small, 8)
    assert program.cost_analysis()["flops"] > 0
    assert stopwatch(2) > 0


def test_a_bank_has_halves_of_its_own():
    lists = halves(5, 20, 0)
    assert lists.shape == (5, 10)
    assert len({tuple(row) for row in lists}) == 5
    assert all(len(set(row)) == 10 for row in lists.tolist())
    data = random_pixels(20, (8, 8, 1), 0)
    assert np.ptp(data.images) > 200


# -------------------------------------------------------------------- the command line

SMALLEST = [
    *("--model", "tiny", "--sizes", "8", "--members", "2"),
    *("--batch", "4", "--rounds", "1"),
]


def run(*words):
    return commands.main(list(words))


def test_the_list_has_a_sentence_for_each(capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in (*BENCHMARKS, "draw", "queue"))


def test_a_benchmark_is_run_printed_written_and_drawn(tmp_path, capsys, monkeypatch):
    file = tmp_path / "new" / "members.json"
    words = ["members", *SMALLEST, "--out", str(file)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    assert run(*words) == 0
    assert "one member, xla" in capsys.readouterr().out
    value = read(file)
    assert value["settings"]["sizes"] == [8]
    assert value["command"] == " ".join(["python -m benchmarks", *words])
    assert [path.name for path in file.parent.iterdir()] == ["members.json"]
    assert run("draw", str(file), "--out", str(tmp_path / "pictures")) == 0
    assert (tmp_path / "pictures" / "members-dark.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stepps",), "'stepps' is no benchmark; known: steps, "),
        (("members", "--model", "vgg"), "model is 'vgg'; it is resnetN, wrn-N-K"),
        (
            ("input_pipeline", "--records", "8"),
            "batch_size is 32; it must be 1 to 8, the number of records",
        ),
        (("members", "--out", "."), "out is ., which is a folder"),
        (("draw", "nowhere.json"), "nowhere.json cannot be read as a record"),
        (("draw", "setup.cfg"), "setup.cfg cannot be read as a record"),
        (("queue", "--only", "x"), "only names 'x'; known: "),
    ],
)
def test_bad_input_is_refused_in_a_line(words, message, capsys, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_record_names_no_folder_of_data():
    words = ["epoch", "--data", "mnist", "--data-dir", "/home/me/data", "--out", "x"]
    assert command("epoch", words) == (
        "python -m benchmarks epoch --data mnist --data-dir DIR --out x"
    )
    words = ["dpsgd", "--environments", "/home/me/peers"]
    assert command("dpsgd", words).endswith("dpsgd --environments DIR")
    settings = find("epoch").settings(data_dir=Path("/home/me/data"))
    assert record("epoch", settings, [])["settings"]["data_dir"] == "DIR"


def test_a_record_names_the_commit_where_the_code_came_without_its_repository(
    monkeypatch,
):
    assert re.fullmatch(r"[0-9a-f]{40}\+?", commit() or "0" * 40)
    monkeypatch.setenv("RPJAX_COMMIT", "abc")
    assert commit() == "abc"


def test_numbers_that_are_none_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "x.json", record("steps", {}, [{"seconds": float("nan")}]))
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------- records, and the queue


@pytest.mark.parametrize("path", sorted((FOLDER / "records").glob("*.json")), ids=str)
def test_a_committed_record_stands_in_the_table_and_can_be_drawn(path, tmp_path):
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert f"(records/{path.name})" in readme
    value = json.loads(path.read_text("utf-8"))
    kinds = ("benchmark/1", "results/1", "attacks/1", "sweep/2")
    assert value["schema"] in [f"rpjax.{kind}" for kind in kinds]
    if value["schema"] == "rpjax.benchmark/1":
        assert value["command"].split("--out")[0].strip() in readme.replace("`", "")
        assert len(draw(path, tmp_path)) == 4


def test_the_queues_page_has_every_command():
    page = (FOLDER / "GPU_QUEUE.md").read_text("utf-8")
    for entry in gpu_queue.ENTRIES:
        words = " ".join(gpu_queue.command(entry, "benchmarks/records"))
        assert f"| {entry.record} | {entry.seconds} s | `python {words}` |" in page
        parsed, _ = commands.parsed(
            entry.command.split()[0],
            find(entry.command.split()[0]).settings,
            entry.command.split()[1:],
        )
        assert isinstance(parsed, find(entry.command.split()[0]).settings)


def test_the_queue_goes_on_where_it_was_and_one_failure_stops_nothing(
    tmp_path, monkeypatch, capfd
):
    tiny = " ".join(["members", *SMALLEST])
    entries = [
        gpu_queue.Entry("there", tiny, 60, ""),
        gpu_queue.Entry("fails", "members --model vgg", 60, ""),
        gpu_queue.Entry("works", tiny, 60, ""),
        gpu_queue.Entry("too_long", tiny, 10_000, ""),
    ]
    monkeypatch.setattr(gpu_queue, "ENTRIES", entries)
    monkeypatch.chdir(FOLDER.parent)
    (tmp_path / "there.json").write_text("{}")
    options = gpu_queue.Queue(out=tmp_path, minutes=2)
    assert gpu_queue.work(options) == 1
    printed = capfd.readouterr()
    assert "too_long: left for the next call" in printed.out
    assert "failed: fails" in printed.err
    assert {p.name for p in tmp_path.iterdir()} == {"there.json", "works.json"}
    assert [e.record for e in gpu_queue.due(options)] == ["fails", "too_long"]


def test_what_runs_too_long_is_ended_with_its_processes(tmp_path, monkeypatch, capfd):
    began = time.monotonic()
    entry = gpu_queue.Entry("slow", "members", 1, "")
    code = "import subprocess, sys; subprocess.run(['sleep', '77.25'])"
    monkeypatch.setattr(gpu_queue, "command", lambda entry, out: ["-c", code])
    monkeypatch.setattr(gpu_queue, "ENTRIES", [entry])
    assert gpu_queue.work(gpu_queue.Queue(out=tmp_path)) == 1
    assert time.monotonic() - began < 20
    time.sleep(0.2)
    listed = subprocess.run(["ps", "ax"], capture_output=True, text=True).stdout
    assert "sleep 77.25" not in listed


@pytest.mark.parametrize("name", ["cells", "hlo", "compile"])
def test_the_examples_in_docstrings_are_right(name):
    result = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
