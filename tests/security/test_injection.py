"""Names are only names: whatever stands in one drives no terminal, no spreadsheet, no log and no drawing."""

import csv
import json
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cvtrain.report.plots import decision_boundary, lr_grid

STRINGS = {
    "C0": "a\x01\x07\x08\x0b\x7fb",
    "C1": "a\x84\x9b31mb\x9d0;b\x9c",
    "colours": "\x1b[31mred\x1b[0m",
    "cleared screen": "\x1b[2J\x1b[H\x1b]0;owned\x07",
    "OSC 8 link": "\x1b]8;;https:evil.example\x1b\\click\x1b]8;;\x1b\\",
    "bidi override": "a\u202etxt.exe\u202c",
    "bidi isolate": "a\u2066b\u2069\u2067c\u2069\u200f",
    "zero width": "a\u200b\u200d\u2060\ufeffb\u3164\ufe00",
    "tags": "a\U000e0041\U000e0042",
    "stray bytes": "a\udcff\udc80b",
    "CR and LF": "a\r\n2026-01-01T00:00:00.000 done\nb",
    "line separators": "a\u2028b\u2029c\x85d",
    "tabs": "\ta\tb",
    "quotes and commas": 'a,"b\',;""',
    "formula": "=cmd|' C calc'!A0",
    "plus": "+1+cmd|' C calc'!A0",
    "minus": "-2+3+cmd|' C calc'!A0",
    "at": "@SUM(1+1)*cmd",
    "tab and formula": "\t=1+1",
    "CR and formula": "\r=1+1",
    "script": "<script>alert(1)<script><img src=x onerror=alert(1)>",
    "Markdown": "[click](javascript:alert(1)) ![x](x) `a` | b",
    "mathtext": r"$\frac{1}{$ $x_$ \frac ^_{",
    "format": "%s %n {0} {0.__class__} %(name)s $USER",
    "markup": "[red]x[/red] [link=https:evil]y[b]",
}
TEXTS = [text for kind, text in STRINGS.items() if kind != "stray bytes"]
"""What can stand in a text file."""
LONG = "n" * 10_000
BRIEF = ("model=mlp", "model.hidden=[4]", "augment=none", "trainer.batch_size=32", "trainer.device=cpu")
FORMULA = re.compile(r"\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")


def file_name(text):
    """What a file system takes of it."""
    return text.replace("/", "")


def write_picture(path, *, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(os.fsencode(path), format="PNG")


@pytest.fixture
def folders(tmp_path):
    """A class per string, in which the files are named by other strings; in a folder whose path holds them all."""
    root = tmp_path.joinpath("data", *map(file_name, TEXTS))
    names = [*map(file_name, STRINGS.values()), LONG[:240]]
    for number, name in enumerate(names):
        for i, split in enumerate(("train", "train", "val", "test")):
            write_picture(root / split / name / f"{names[number - i - 1]}.png", shade=10 * number + i)
    return root


@pytest.fixture
def table(tmp_path):
    """A table whose paths and labels are the strings, but those of no text file."""
    root = tmp_path / "table"
    rows = [("image", "label", "split")]
    for number, text in enumerate([*TEXTS, LONG[:240]]):
        for i, split in enumerate(("train", "val", "test")):
            # In a table spaces around a cell are nothing, and a backslash parts folders.
            path = f"{file_name(text)}-{number}-{i}.png".strip().replace("\\", "")
            write_picture(root / path, shade=10 * number + i)
            rows.append((path, text, split))
    with open(root / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture
def typed(command, tmp_path):
    """Runs a command with settings that no shell would take, from a file."""

    def run(*words, **settings):
        own = tmp_path / "own" / "experiment"
        own.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(settings)
        (own / "mine.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
        return command("--config-dir", "own", "experiment=mine", *words)

    return run


def assert_plain(text, *, where):
    """Every character is one that is seen, or ends a line."""
    odd = {c for c in text if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp")} - {"\n"}
    assert not odd | ({"\u3164", "\ufe00"} & set(text)), where


def assert_harmless(result, folder, *, code=0):
    """Looks at what was printed and at every file that somebody may open."""
    assert result.code == code, result.errors
    assert_plain(result.out + "\n".join(result.errors), where="terminal")
    for path in folder.rglob("*"):
        if path.suffix == ".csv":
            text = path.read_bytes().decode()
            assert_plain(text, where=path.name)
            header, *rows = csv.reader(text.splitlines(keepends=True), strict=True)
            assert {len(row) for row in rows} <= {len(header)}
            assert len(text.splitlines()) == 1 + len(rows)
            for cell in (cell for row in (header, *rows) for cell in row):
                assert not FORMULA.match(cell) or float(cell) < 0, cell
        elif path.name == "log.txt":
            lines = path.read_bytes().decode().split("\n")
            assert lines.pop() == ""
            assert_plain("".join(lines), where=path.name)
            assert all(re.match(r"20\d\d-\d\d-\d\dT[\d:.]{12} (?!done)", line) for line in lines)
        elif path.suffix == ".json":
            json.loads(path.read_bytes().decode(), parse_constant=pytest.fail)


def newest(kind):
    return max(Path("outputs", kind).rglob("config.yaml"), key=os.path.getmtime).parent


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_names_of_classes_files_and_folders_are_only_names(typed, command, folders, tmp_path):
    root = str(folders)
    trained = typed("data=image_folder", *BRIEF, "trainer.steps=2", data={"root": root})
    outputs = tmp_path / "outputs"
    assert_harmless(trained, outputs)
    run = newest("train")
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["root"] == root
    rows = rows_of(run / "predictions.csv")
    assert len(rows) == len({row["label"] for row in rows}) == len(STRINGS) + 1
    assert_harmless(command(f"resume={run}", "trainer.steps=3"), outputs)
    evaluated = typed("task=evaluate", f"checkpoint={run}", "data=image_folder", data={"root": root})
    assert_harmless(evaluated, outputs)
    for kind in ("format", "markup", "mathtext"):
        assert STRINGS[kind].replace("/", "") in evaluated.out
    predicted = typed("task=predict", f"checkpoint={run}", input=str(folders / "test"))
    assert_harmless(predicted, outputs)
    assert len(rows_of(newest("predict") / "predictions.csv")) == len(STRINGS) + 1
    assert_harmless(typed("task=audit", "data=image_folder", data={"root": root}), outputs)


def test_names_in_drawings_are_only_names(tmp_path):
    names = [*TEXTS, "x" * 300, "a\udcff"]
    points = np.random.default_rng(0).normal(size=(len(names), 2))
    labels, path = np.arange(len(names)), tmp_path / "plot.png"
    title, same = "".join(names), np.full((1, len(names)), 1 / len(names))
    fill = {"probabilities_fn": lambda points: np.repeat(same, len(points), 0), "class_names": names, "title": title}
    decision_boundary(path, points, labels, **fill)
    assert path.stat().st_size > 10_000
    path.unlink()
    lr_grid(path, {name: [(0.1, 0.5, 0.1)] for name in names}, metric="test accuracy", title=title)
    assert path.stat().st_size > 10_000


def test_names_in_a_table_are_only_names(typed, table, tmp_path):
    outputs = tmp_path / "outputs"
    words = ("data=image_csv", *BRIEF, "trainer.steps=1")
    assert_harmless(typed(*words, data={"root": str(table)}), outputs)
    rows = rows_of(newest("train") / "predictions.csv")
    assert len(rows) == len(TEXTS) + 1
    assert len({row["label"] for row in rows}) == len({text.strip() for text in TEXTS}) + 1
    assert any(row["image"].startswith("'=cmd") for row in rows), "names are relative to the folder here"
    write_picture(table / "twin.png", shade=0)
    assert_harmless(typed("task=audit", "data=image_csv", data={"root": str(table)}), outputs)


@pytest.mark.parametrize("text", [*STRINGS.values(), LONG, "a\0b"], ids=[*STRINGS, "long", "NUL"])
def test_hostile_names_of_runs_are_refused_in_words(text, typed, tmp_path):
    refused = typed("task=audit", name=text, data={"root": text})
    assert_harmless(refused, tmp_path, code=2)
    assert 1 <= len(refused.errors) <= 6


@pytest.mark.parametrize("text", [LONG, "a\0b", "\x1b[2J"], ids=["long", "NUL", "cleared screen"])
def test_hostile_folders_that_are_not_there_are_refused_in_words(text, typed, tmp_path):
    refused = typed("task=audit", "data=image_folder", data={"root": text})
    assert_harmless(refused, tmp_path, code=refused.code)
    assert refused.code in (2, 3)
    assert 1 <= len(refused.errors) <= 6


def test_hostile_folder_without_images_is_refused_in_words_and_forges_no_line_of_the_log(typed, tmp_path):
    root = tmp_path.joinpath("data", *map(file_name, TEXTS))
    (root / "train").mkdir(parents=True)
    refused = typed("data=image_folder", *BRIEF, data={"root": str(root)})
    assert_harmless(refused, tmp_path / "outputs", code=3)
    (log,) = tmp_path.glob("outputs/train/*/*/log.txt")
    assert "a\\u202etxt.exe" in log.read_text()


@pytest.mark.parametrize("label", [b"a\xff", b"a\0b", LONG.encode()], ids=["stray bytes", "NUL", "long"])
def test_labels_that_no_table_can_hold_are_refused_in_words(label, typed, table, tmp_path):
    write_picture(table / "twin.png", shade=0)
    with open(table / "labels.csv", "ab") as file:
        file.write(b"twin.png," + label + b",train\n")
    refused = typed("data=image_csv", *BRIEF, data={"root": str(table)})
    assert_harmless(refused, tmp_path / "outputs", code=3)
    assert "labels.csv" in refused.errors[0] or "nnn... has a name of 10,000 letters" in refused.errors[0]
    assert not list(tmp_path.rglob("predictions.csv"))
