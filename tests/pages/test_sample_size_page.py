"""The page of a sample-size study: what it says of whole, short, unfinished, failed and damaged folders."""

import json
import re
import shutil

import pytest

from cvtrain.errors import CheckpointError
from cvtrain.pages.sample_size_files import read_study
from cvtrain.pages.sample_size_page import headline, page_content, write_sample_size_page
from cvtrain.pages.sample_size_views import named_curve, size_table, training_table
from cvtrain.report.page_parts import Cell
from tests.page_for_tests import HOSTILE
from tests.pages.study_for_tests import study


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return study(tmp_path_factory.mktemp("whole") / "study", "target=0.8", "validate=true")


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of the whole study that a test may damage."""
    return shutil.copytree(whole, tmp_path / "study")


def page_of(folder):
    return write_sample_size_page(folder).read_text("utf-8")


def shown(text):
    """The words of a page."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def sections(text):
    return re.findall(r'<section id="([a-z_]+)"', text)


def test_whole_study_has_every_section_and_leads_with_the_answer(whole):
    text = page_of(whole)
    assert sections(text) == [
        "answers", "curve", "sizes", "check", "forms", "trainings", "protocol", "commands", "config",
    ]  # fmt: skip
    curve = json.loads((whole / "learning_curve.json").read_text())
    figure, words = headline(read_study(whole))
    assert figure == f"About {curve['target']['per_class']:,} images per class"
    low, high = (f"{int(float(format(curve['target'][end], '.3g'))):,}" for end in ("low", "high"))
    assert words == f"for a test accuracy of 80.0 %, within what was measured; 90 % interval [{low}, {high}]"
    for sentence in curve["sentences"]:
        assert sentence[1:] in shown(text)
    assert "warnings" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert "cvtrain task=report" in text
    assert not [path for path in whole.iterdir() if path.name.endswith(".tmp")]


def test_page_is_a_function_of_the_folder_alone(copied):
    first = page_of(copied)
    assert page_of(copied) == first


def test_tables_hold_the_figures_of_the_rows(whole):
    files = read_study(whole)
    columns, rows = size_table(files.rows)
    assert [column.name for column in columns][:4] == ["per class", "n", "test [95 %]", "sd"]
    points = json.loads((whole / "learning_curve.json").read_text())["points"]
    for row, point in zip(rows, points, strict=True):
        ends = f"[{100 * point['low']:.1f}, {100 * point['high']:.1f}]"
        assert row[:3] == [point["per_class"], 3, Cell(f"{100 * point['mean']:.1f} % {ends}", row[2].value)]
        assert row[2].value == pytest.approx(point["mean"])
        assert row[7] == 1, "of each size one training was stopped early"
    _, rows = training_table(files.rows, files.trainings)
    assert len(rows) == 18
    assert rows[4][:2] == [20, Cell("1", 1, path="runs/n00020-r01")]
    assert rows[4][2] == files.rows[4].test_accuracy


@pytest.mark.parametrize(
    ("changes", "figure", "words"),
    [
        ({"words": ["target=0.999"]}, "Not reachable", "test accuracy of 99.9 %, with this model"),
        ({"words": ["target=0.3"]}, "10 images per class", "are enough for a test accuracy of 30.0 %"),
        ({"words": ["target=0.8"], "sizes": (10, 50)}, "No answer", "at least 4 are needed to look beyond"),
        ({"words": ["target=0.8"], "sizes": (50,)}, "%", "test accuracy with 50 images per class, mean of 3"),
        ({"sizes": (50,), "num_replicates": 1}, "%", "test accuracy with 50 images per class, one training"),
    ],
)
def test_headline_is_the_answer_or_says_that_there_is_none(tmp_path, changes, figure, words):
    changes = dict(changes)
    folder = study(tmp_path / "study", *changes.pop("words", ()), **changes)
    found = headline(read_study(folder))
    assert figure in found[0]
    assert words in found[1]
    text = page_of(folder)
    assert found[1] in shown(text).replace("&#39;", "'")
    assert "cannot be shown" not in text


def test_study_that_is_not_complete_says_so_and_how_to_go_on(tmp_path):
    failures = [(500, 7, HOSTILE[0])]
    folder = study(tmp_path / "study", num_planned=30, failures=failures)
    text = page_of(folder)
    assert "Not complete: 18 of 30 trainings were done when this page was made. 1 failed." in text
    assert "Do what is left" in text
    assert "failures" in sections(text)
    assert HOSTILE[0] not in text
    assert "&lt;script&gt;document.title=&#39;taken&#39;&lt;/script&gt;" in text
    assert 'href="./runs/n00500-r07"' in text


def test_study_of_which_nothing_is_done_has_a_page(tmp_path):
    folder = study(tmp_path / "study", sizes=(), num_planned=12)
    text = page_of(folder)
    assert "Not complete: 0 of 12 trainings" in text
    assert "No training is done yet." in text
    assert "cannot be shown" not in text


@pytest.mark.parametrize("names", [HOSTILE[:1], HOSTILE[1:3], HOSTILE[3:]])
def test_names_are_shown_as_text(tmp_path, names):
    folder = study(tmp_path / "study", sizes=(10, 20), model=" ".join(names))
    text = page_of(folder)
    assert not any(name in text for name in names if "<" in name)
    assert "\u202e" not in text


DAMAGES = {
    "a torn table": lambda folder: (folder / "sample_size.csv").write_text("per_class,replicate\n10"),
    "no table": lambda folder: (folder / "sample_size.csv").unlink(),
    "a torn curve": lambda folder: (folder / "learning_curve.json").write_text('{"points": ['),
    "a curve of something else": lambda folder: (folder / "learning_curve.json").write_text('{"points": [1]}'),
    "a list as curve": lambda folder: (folder / "learning_curve.json").write_text("[]"),
    "no curve": lambda folder: (folder / "learning_curve.json").unlink(),
    "no card": lambda folder: (folder / "run.json").unlink(),
    "a torn config": lambda folder: (folder / "config.yaml").write_text("seed: 0\n"),
    "no trainings": lambda folder: shutil.rmtree(folder / "runs"),
    "binary everywhere": lambda folder: [
        (folder / name).write_bytes(b"\xff\xfe\x00") for name in ("sample_size.csv", "learning_curve.json")
    ],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_costs_its_sections_and_a_sentence(copied, damage):
    DAMAGES[damage](copied)
    text = page_of(copied)
    assert {"answers", "curve", "protocol", "commands"} <= set(sections(text))
    if damage != "no trainings":
        said = re.search(r'<ul class="warnings">.*?</ul>', text, re.DOTALL)
        assert said or damage == "no card"


def test_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        write_sample_size_page(tmp_path)


def test_curve_that_is_older_than_the_table_is_told(copied):
    curve = json.loads((copied / "learning_curve.json").read_text())
    del curve["points"][-1]
    (copied / "learning_curve.json").write_text(json.dumps(curve))
    assert "The curve is of 15 trainings, not of the 18 in the tables" in page_of(copied)
    del curve["sentences"]
    curve["points"].append(json.loads((copied / "learning_curve.json").read_text())["points"][0])
    assert page_content(read_study(copied))["answers"] != []


def test_protocol_is_told_in_words(tmp_path):
    def protocol(*words):
        return " ".join(page_content(read_study(study(tmp_path / "-".join(words), *words, sizes=(10,))))["protocol"])

    robust = protocol("budget.epochs=7", "budget.min_steps=123", "budget.max_steps=4567", "budget.patience=9")
    for words in ("Protocol robust: 7 passes", "at least 123 steps and at most 4,567", "After 9 evaluations", "20 %"):
        assert words in robust
    posts = protocol("protocol=posts", "trainer.epochs=4")
    assert "Protocol posts" in posts
    assert "trainer.epochs=4" in posts
    assert "robust" not in posts


def test_curve_for_a_comparison_is_that_of_the_file(whole):
    curve = json.loads((whole / "learning_curve.json").read_text())
    named = named_curve("mlp", curve)
    assert named.measured.per_class == [10, 20, 50, 100, 200, 500]
    assert named.measured.means == pytest.approx([point["mean"] for point in curve["points"]])
    assert named.fit.accuracies == curve["curve"]["accuracy"]
    assert named_curve("mlp", {}) is None
