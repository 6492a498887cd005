"""The page of a comparison: of single models, of arms with seeds, of sample-size sweeps; with runs that are gone."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cvtrain.analysis.paired_predictions import paired_predictions
from cvtrain.errors import CheckpointError
from cvtrain.jobs.ledger import Ledger
from cvtrain.pages.comparison_page import write_comparison_page
from cvtrain.sweeps.arms import arms_of
from cvtrain.sweeps.as_json import comparison_json
from cvtrain.sweeps.from_json import comparison_from_json, stored
from cvtrain.sweeps.image_verdict import compare_images
from cvtrain.sweeps.predictions import Predictions
from cvtrain.sweeps.verdict import compare_arms
from tests.pages.sweeps_for_tests import JobForTests, grid_of_two, series_of, tables_of, text_of, write_sweep

LABELS = ["cat", "dog"] * 10
SAID = {  # adam alone is right of the images 0 to 3, sgd alone of the image 4
    "adam": [*LABELS[:4], "dog", *LABELS[5:]],
    "sgd": ["dog", "cat", "dog", "cat", *LABELS[4:]],
}
ABOUT = {"data": "digits", "model": "lenet", "num_test": 20, "class_names": ["cat", "dog"]}
CAUTION = "not all runs were made alike, but with other versions of torch"


def picture_of(shade):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), shade, np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def write_comparison(folder, runs, *, images=None):
    comparison = compare_arms(arms_of(runs, swept=("optimizer", "seed"), absent=None))
    folder.mkdir(parents=True)
    found = compare_images(comparison.arms, images) if images else None
    text = comparison_json(comparison, runs, images=found, about={**ABOUT, "warnings": [CAUTION]})
    (folder / "comparison.json").write_text(text)
    return folder


@pytest.fixture
def seeds(tmp_path):
    """Arms with two seeds each."""
    sweep = write_sweep(tmp_path / "runs", grid_of_two())
    return write_comparison(tmp_path / "compare" / "it", Ledger(sweep).results())


@pytest.fixture
def single(tmp_path):
    """An arm and a model each, with answers, and pictures of two images."""
    jobs = [JobForTests({"optimizer": "sgd"}, 0.7, 16 / 20), JobForTests({"optimizer": "adam"}, 0.9, 19 / 20)]
    sweep = write_sweep(tmp_path / "runs", jobs)
    runs, answers = Ledger(sweep).results(), {}
    for run in runs:
        said = SAID[run.overrides["optimizer"]]
        rows = [f"{i},{label},{word},0.{90 - i}" for i, (label, word) in enumerate(zip(LABELS, said, strict=True))]
        (run.run_dir / "predictions.csv").write_text("\n".join(["image,label,prediction,probability", *rows, ""]))
        is_right = np.array([label == word for label, word in zip(LABELS, said, strict=True)])
        answers[run.run_dir] = Predictions(tuple(map(str, range(20))), tuple(LABELS), is_right)
    kept = [{"name": name, "image": picture_of(50 * i), "label": "cat"} for i, name in enumerate(("1", "7"), start=1)]
    (runs[0].run_dir / "report.json").write_text(json.dumps({"worst_errors": kept}))
    return write_comparison(tmp_path / "compare" / "it", runs, images=answers)


def test_arms_and_pairs_over_seeds_are_told(seeds):
    page = write_comparison_page(seeds)
    tables, text = tables_of(page), text_of(page)
    assert [row[:2] for row in tables["arms"][1:]] == [["optimizer=adam", "2"], ["optimizer=sgd", "2"]]
    assert tables["pairs"][1][:4] == ["optimizer=adam", "optimizer=sgd", "2", "10.00 [10.00, 10.00]"]
    assert "images" not in tables
    assert CAUTION in text
    assert "No winner named" in text
    assert "Comparison of lenet on digits" in text


def test_settings_that_differ_and_no_others_are_listed(seeds):
    assert tables_of(write_comparison_page(seeds))["settings"] == [
        ["setting", "arm 1", "arm 2"],
        ["optimizer", "adam", "sgd"],
    ]


def test_runs_lead_to_their_own_pages(seeds, tmp_path):
    (tmp_path / "runs" / "0000000000000003" / "report.html").write_text("<p>")
    page = write_comparison_page(seeds).read_text()
    assert 'href="./../../runs/0000000000000003/report.html"' in page
    assert page.count("/report.html") == 1


def test_single_models_are_compared_image_by_image(single):
    page = write_comparison_page(single)
    tables, text = tables_of(page), text_of(page)
    is_right = {name: np.array([a == b for a, b in zip(said, LABELS, strict=True)]) for name, said in SAID.items()}
    expected = paired_predictions(is_right["adam"], is_right["sgd"])
    head, row = tables["images"][:2]
    shown = dict(zip(head, row, strict=True))
    assert (shown["only the first is right"], shown["only the second is right"]) == ("4", "1")
    assert shown["p (Holm)"] == f"{expected.p_value:.3f}"
    assert (
        "Of 20 test images 5 are answered right by one of the two alone: 4 by optimizer=adam, 1 by optimizer=sgd"
        in text
    )
    assert "95.0 % [76.4, 99.1]" in text  # Wilson 1927, 19 of 20


def test_images_that_tell_two_models_apart_are_named_and_shown(single):
    page = write_comparison_page(single)
    rows = tables_of(page)["images"][3:]
    assert [row[:3] for row in rows] == [
        ["0", "cat", "optimizer=adam"],
        ["1", "dog", "optimizer=adam"],
        ["2", "cat", "optimizer=adam"],
        ["3", "dog", "optimizer=adam"],
        ["4", "cat", "optimizer=sgd"],
    ]
    assert rows[0][3:] == ["cat, 90.0 %", "dog, 90.0 %"]
    assert picture_of(50) in page.read_text(), "of image 1, which adam alone is right about"
    assert picture_of(100) not in page.read_text(), "of image 7, about which both are"


def test_curves_of_all_runs_lie_over_each_other(seeds):
    curves = series_of(write_comparison_page(seeds), "Validation accuracy of each run")
    assert curves["adam seed=1"] == [[1, 0.405], [2, 0.81]]
    assert set(curves) == {f"{name} seed={seed}" for name in ("adam", "sgd") for seed in (0, 1)}


def test_runs_that_are_gone_are_left_out_and_said_to_be(single, tmp_path):
    shutil.rmtree(tmp_path / "runs" / "0000000000000000")
    text = text_of(write_comparison_page(single))
    assert "0000000000000000 is gone: its curve and its answers are left out" in text
    assert "answered right by one of the two alone" not in text
    shutil.rmtree(tmp_path / "runs")
    text = text_of(write_comparison_page(single))
    assert "2 folders of runs" in text
    assert "optimizer=adam: 95.0 %" in text


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"arms": 3}', '{"arms": [], "pairs": [], "sentences": [], "winner": null}', '{"sizes": 3}'],
)
def test_damaged_comparison_is_refused(tmp_path, content):
    (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"comparison\.json"):
        write_comparison_page(tmp_path)


def test_comparison_is_read_back_as_it_was_made(tmp_path):
    sweep = write_sweep(
        tmp_path / "runs", [*grid_of_two(), JobForTests({"optimizer": "muon"}, status="failed", exit_code=5)]
    )
    results = Ledger(sweep).results()
    comparison = compare_arms(arms_of(results, swept=("optimizer", "seed")))
    plain = json.loads(comparison_json(comparison, results))
    assert comparison_from_json(plain, tmp_path) == stored(comparison)


def mean(value):
    return {"num_values": 3, "mean": value, "sd": 0.01, "low": value - 0.02, "high": value + 0.02}


def size(per_class, a, b):
    paired = {"num_pairs": 3, "num_unpaired": 0, "difference": mean(a - b), "p_value": 0.25, "probability_greater": 1.0}
    return {
        "per_class": per_class,
        "a": mean(a),
        "b": mean(b),
        "paired": paired,
        "holm_p_value": 0.5,
        "verdict": "too_few_pairs",
    }


def test_two_sample_size_sweeps_have_a_page_without_their_folders(tmp_path):
    plain = {
        "names": ["lenet", "mlp"],
        "runs": ["/gone/a", "/gone/b"],
        "differ_in": [{"key": "model", "a": "lenet", "b": "mlp", "is_choice": True}],
        "chance_accuracy": 0.1,
        "num_test": 360,
        "sizes": [size(10, 0.6, 0.5), size(20, 0.7, 0.65)],
        "crossings": None,
        "sentences": ["no verdict with 10 and 20 images per class"],
    }
    (tmp_path / "comparison.json").write_text(json.dumps(plain))
    page = write_comparison_page(tmp_path)
    assert tables_of(page)["sizes"][1] == [
        "10",
        "60.0 % [58.0, 62.0]",
        "50.0 % [48.0, 52.0]",
        "10.0 [8.0, 12.0]",
        "0.500",
        "3",
        "too few pairs",
    ]
    assert [point[:2] for point in series_of(page, "lenet - mlp, paired")["lenet - mlp"]] == [[10, 10], [20, 5]]
    text = text_of(page)
    assert "/gone/a is gone: its curve is drawn from the sizes that both sweeps have" in text
    assert "no verdict with 10 and 20 images per class" in text
