import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cvtrain.console import Console
from cvtrain.data.audit.inspection import Seen
from cvtrain.outputs import RunDir
from cvtrain.signals import StopRequest
from cvtrain.tasks.audit import look_at_files
from tests.tasks.looks_for_tests import inspect_or_die


@pytest.fixture
def tree(tmp_path, write_images):
    """Forty images of two classes, of which no two are alike; a tenth of the folder validates."""
    counts = {"train/cat": 12, "train/dog": 12, "val/cat": 4, "val/dog": 4, "test/cat": 4, "test/dog": 4}
    return write_images(tmp_path / "photos", counts, size=32)


@pytest.fixture
def audit(command, tmp_path, tree):
    """Audits the tree, or what else is typed; returns the result, the rows, the figures and the run card."""

    def run(*words):
        result = command("task=audit", *(words or ("data=image_folder", f"data.root={tree}")))
        folder = max((tmp_path / "outputs" / "audit").glob("*/*"), default=None)
        if folder is None or not (folder / "audit.csv").exists():
            return result, None, None, None
        with open(folder / "audit.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return result, rows, *(json.loads((folder / name).read_text()) for name in ("audit.json", "run.json"))

    return run


def digests(root):
    return {
        p: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()
    }


def test_good_images_have_no_findings(audit, tree):
    before = digests(tree)
    result, rows, summary, card = audit()
    assert result.code == 0
    assert rows == []
    assert "nothing is wrong with these images" in result.out
    assert summary["num_images"] == {"train": 24, "val": 8, "test": 8}
    assert summary["class_counts"]["val"] == {"cat": 4, "dog": 4}
    assert summary["modes"] == {"RGB": 40}
    assert (card["task"], card["status"], card["num_findings"]) == ("audit", "done", {})
    assert digests(tree) == before


def test_planted_duplicates_are_all_found_with_their_pairs(audit, tree):
    shutil.copy(tree / "train/cat/3.png", tree / "test/cat/copy.png")
    shutil.copy(tree / "train/cat/4.png", tree / "train/dog/other_label.png")
    shutil.copy(tree / "val/dog/1.png", tree / "test/dog/val_copy.png")
    Image.open(tree / "train/dog/5.png").save(tree / "val/dog/saved_anew.bmp")
    Image.open(tree / "train/dog/6.png").save(tree / "test/dog/encoded.jpg", quality=90)
    Image.open(tree / "train/cat/7.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tree / "test/cat/mirror.png")
    before = digests(tree)
    result, rows, summary, _ = audit()
    assert result.code == 0
    assert [(r["kind"], r["split"], r["path"], r["other_split"], r["other_path"]) for r in rows] == [
        ("same_file", "test", "test/cat/copy.png", "train", "train/cat/3.png"),
        ("same_file", "test", "test/dog/val_copy.png", "val", "val/dog/1.png"),
        ("same_pixels", "val", "val/dog/saved_anew.bmp", "train", "train/dog/5.png"),
        ("near_duplicate", "test", "test/dog/encoded.jpg", "train", "train/dog/6.png"),
        ("mirrored", "test", "test/cat/mirror.png", "train", "train/cat/7.png"),
        ("same_file", "train", "train/dog/other_label.png", "train", "train/cat/4.png"),
    ]
    assert [r["detail"] for r in rows][:3] == ["leak"] * 3
    assert (rows[-1]["class"], rows[-1]["other_class"], rows[-1]["detail"]) == ("dog", "cat", "two labels")
    assert summary["two_labels"] == {"same": 1, "alike": 0}
    leaks = {(leak["split"], leak["other_split"], leak["kind"]): leak["num_images"] for leak in summary["leaks"]}
    assert leaks == {
        ("test", "train", "same"): 1,
        ("test", "val", "same"): 1,
        ("val", "train", "same"): 1,
        ("test", "train", "alike"): 2,
    }
    assert "1  in test and train: the same picture, such as test/cat/copy.png and train/cat/3.png" in result.out
    assert "1  one picture, two labels, such as train/dog/other_label.png" in result.out
    assert "leaks: remove them from test" in result.out
    assert digests(tree) == before


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_all_unreadable_images_are_told_in_one_pass(audit, tree, on_bad):
    good = (tree / "train/cat/0.png").read_bytes()
    for i in range(9):
        (tree / f"train/dog/cut{i}.png").write_bytes(good[: 300 + i])
    for path in (tree / "val/cat").iterdir():
        path.write_bytes(b"")
    (tree / "test/dog/page.png").write_text("<html>404</html>")
    (tree / "test/dog/link.png").symlink_to("nowhere")
    before = digests(tree)
    result, rows, _, card = audit("data=image_folder", f"data.root={tree}", f"data.on_bad={on_bad}")
    bad = {r["path"]: r["detail"] for r in rows if r["kind"] == "unreadable"}
    assert Counter(path.rpartition("/")[0] for path in bad) == {"train/dog": 9, "val/cat": 4, "test/dog": 2}
    assert all(bad.values())
    assert rows[: len(bad)] == [r for r in rows if r["kind"] == "unreadable"]
    assert result.code == card["exit_code"] == (3 if on_bad == "error" else 0)
    if on_bad == "error":
        assert result.errors[0] == "error: 15 of 51 images cannot be read:"
        assert len(result.errors) == 6
        assert "... and 12 more, all in audit.csv" in result.errors[4]
    assert "15  cannot be read, such as train/dog/cut0.png" in result.out
    assert digests(tree) == before


def test_class_of_which_nothing_can_be_read_is_audited_too(audit, tree):
    for path in (tree / "train/cat").iterdir():
        path.write_bytes(b"")
    result, rows, summary, _ = audit()
    assert result.code == 3
    assert len(rows) == 12
    assert summary["class_counts"]["train"]["cat"] == 12


def test_hostile_names_drive_neither_spreadsheet_nor_terminal(audit, tree):
    names = ["=cmd|' C'!A0.png", "+1.png", "@x.png", "\x1b[2J.png", 'a\nb,"c.png', "[red]x.png", "\udcff.png"]
    for name in names:
        shutil.copy(tree / "train/cat/0.png", tree / "test/cat" / name)
    os.rename(tree / "train/dog", tree / "train/=1+1")
    for split in ("val", "test"):
        os.rename(tree / split / "dog", tree / split / "=1+1")
    result, rows, _, _ = audit()
    assert result.code == 0
    assert len(rows) == 7
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", result.out)
    for row in rows:
        assert all(cell.isprintable() and cell[:1] not in ("=", "+", "-", "@") for cell in row.values())


def test_summary_is_short_however_much_is_wrong(audit, tree):
    for i, split in enumerate(("train/dog", "val/cat", "test/dog")):
        for number in range(3):
            shutil.copy(tree / f"train/cat/{number}.png", tree / split / f"copy{number}.png")
        Image.open(tree / f"train/cat/{i + 5}.png").save(tree / split / "near.jpg", quality=85)
        Image.new("CMYK", (5, 90)).save(tree / split / "print.jpg")
        Image.new("RGBA", (32, 32)).save(tree / split / "clear.gif", "PNG")
        (tree / split / "empty.png").touch()
    result, rows, _, _ = audit()
    assert len(result.out.splitlines()) <= 30
    assert {"unreadable", "same_file", "near_duplicate", "uniform", "tiny", "odd_size", "misnamed"} <= {
        r["kind"] for r in rows
    }


@pytest.mark.parametrize("data", ["digits", "synthetic", "spiral"])
def test_images_in_memory_are_audited(audit, data):
    result, rows, summary, _ = audit(f"data={data}")
    assert result.code == 0
    assert len(summary["num_images"]) == 2
    assert summary["modes"] == {}
    assert len(rows) < 0.02 * sum(summary["num_images"].values()), "drawings of a few strokes are alike, not the same"


def test_images_of_a_table_are_audited(audit, tmp_path, tree):
    (tmp_path / "table.csv").write_text(
        "image,label,split\n"
        + "".join(f"train/cat/{i}.png,{'ab'[i % 2]},train\n" for i in range(8))
        + "test/cat/0.png,a,test\nbad.png,b,test\n"
    )
    (tree / "bad.png").write_bytes(b"no picture")
    shutil.copy(tmp_path / "table.csv", tree / "labels.csv")
    result, rows, summary, _ = audit("data=image_csv", f"data.root={tree}")
    assert result.code == 3
    assert [(r["kind"], r["path"], r["class"]) for r in rows] == [("unreadable", "bad.png", "b")]
    assert summary["num_images"] == {"train": 8, "test": 2}


def test_folder_that_cannot_be_learnt_from_is_refused_in_the_words_of_training(audit, tmp_path):
    result, rows, _, _ = audit("data=image_folder", f"data.root={tmp_path / 'nowhere'}")
    assert (result.code, rows) == (3, None)
    assert "data.root does not exist" in result.errors[0]


# --------------------------------------------------------------------------------------------------- processes


def test_several_processes_see_the_same_and_a_deadly_file_costs_itself_alone(tree, monkeypatch):
    (tree / "train/cat/deadly.png").write_bytes((tree / "train/cat/0.png").read_bytes())
    (tree / "train/dog/bad.png").write_bytes(b"no picture")
    paths = sorted(str(path) for path in tree.rglob("*.png"))
    with StopRequest() as stop:
        here = look_at_files([path for path in paths if "deadly" not in path], Console(), stop=stop)
        monkeypatch.setattr("cvtrain.tasks.audit._FEW_FILES", 2)
        monkeypatch.setattr("cvtrain.tasks.audit._FILES_PER_ITEM", 7)
        monkeypatch.setattr("cvtrain.tasks.audit.available_cores", lambda: 2)
        there = look_at_files(paths, Console(), stop=stop, inspect=inspect_or_die)
    (deadly,) = [i for i, path in enumerate(paths) if "deadly" in path]
    assert there.pop(deadly) == "ends the process that decodes it (exit code 3)"
    assert there == here
    assert sum(isinstance(seen, Seen) for seen in here) == 40


def test_ctrl_c_ends_it_at_once_and_leaves_nobody_behind(tmp_path):
    random = np.random.default_rng(0)
    for name in ("train/cat", "train/dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    Image.fromarray(random.integers(0, 256, (1500, 1500, 3), dtype=np.uint8)).save(tmp_path / "large.png")
    for i in range(2200):
        (tmp_path / "photos/train" / ("cat", "dog")[i % 2] / f"{i}.png").symlink_to(tmp_path / "large.png")
    words = [sys.executable, "-m", "cvtrain", "task=audit", "data=image_folder", f"data.root={tmp_path / 'photos'}"]
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, start_new_session=True, **options) as audit:
        while not (cards := list(tmp_path.glob("outputs/audit/*/*/config.yaml"))) or len(_group(audit.pid)) < 3:
            assert audit.poll() is None
            time.sleep(0.05)
        os.killpg(audit.pid, signal.SIGINT)
        _, errors = audit.communicate(timeout=60)
    assert audit.returncode == 130
    assert errors.splitlines() == ["error: stopped by signal 2 (SIGINT)"]
    assert RunDir(cards[0].parent).read_card()["status"] == "stopped"
    deadline = time.monotonic() + 10  # what multiprocessing keeps beside its workers ends when it notices
    while _group(audit.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _group(audit.pid) == []


def _group(pid):
    """The processes of a group."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.split()[1] == str(pid)]


# ------------------------------------------------------------------------------------------- start of training


def test_training_warns_of_images_that_are_tested_too_and_names_what_lists_them(command, tree, tmp_path):
    words = ["data=image_folder", f"data.root={tree}", f"data.cache_dir={tmp_path / 'cache'}", "trainer=smoke"]
    words += ["model=linear", "data.image_size=16"]
    assert "trained on too" not in command(*words).out
    shutil.copy(tree / "train/cat/3.png", tree / "test/cat/copy.png")
    result = command(*words)
    assert result.code == 0
    line = "1 of 9 test images are trained on too (test/cat/copy.png is train/cat/3.png): accuracy is too good there;"
    (warning,) = [text for text in result.out.splitlines() if "trained on too" in text]
    assert warning.startswith(f"warning: {line}")
    listing = re.search(r"cvtrain (task=audit .*) lists them", warning).group(1).split()
    assert "in test and train: the same picture, such as test/cat/copy.png" in command(*listing).out
    run = max((tmp_path / "outputs/train").glob("*/*"))
    assert warning.removeprefix("warning: ") in json.loads((run / "run.json").read_text())["warnings"]


@pytest.mark.long
def test_audit_of_several_data_is_a_multirun(command, tmp_path):
    result = command("--multirun", "task=audit", "data=synthetic,spiral", "sweep.name=first")
    assert result.code == 0
    assert "nothing is wrong with these images" in result.out
    assert len(list((tmp_path / "outputs/audit").glob("*/*/audit.json"))) == 2
