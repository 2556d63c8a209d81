"""Benchmarks: the command line, committed records, and the queue for a GPU."""

import doctest
import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import BENCHMARKS, commands, gpu_queue
from benchmarks.benchmark import find
from benchmarks.drawing import draw
from benchmarks.record import command, commit, read, record, write

FOLDER = Path(__file__).parents[1] / "benchmarks"

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
