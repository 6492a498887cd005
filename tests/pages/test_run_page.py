"""The page of a run: what it says of every kind of run, and that nothing in a folder can spoil it."""

import base64
import html
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cvtrain import build
from cvtrain.cli import dispatch
from cvtrain.compose import compose
from cvtrain.config import save_text
from cvtrain.ending import exit_code_of
from cvtrain.errors import CheckpointError
from cvtrain.outputs import RunDir
from cvtrain.pages.pictures import Shown, augmented_examples
from cvtrain.pages.run_files import read_run
from cvtrain.pages.run_material import write_material
from cvtrain.pages.run_page import page_content, write_run_page
from cvtrain.plain_text import printable
from cvtrain.report.page import MAX_PAGE_BYTES
from tests.pages.runs_for_tests import ROWS, class_names, write_run

HOSTILE = ("<img src=x onerror=alert(1)>", "a \"quoted\" 'name' & \u202emore", "x" * 120)
"""Names that folders can have."""

SVG = {"image": "PHN2Zz4=", "name": "1", "label": "a", "prediction": "b", "probability": 0.5}
"""A picture that is no PNG or JPEG file, and could hold a script."""

SMALL = ("model=mlp", "model.hidden=[4]", "trainer.device=cpu")


def text_of(path):
    """What a reader sees: without tags, script and style, and with entities resolved."""
    page = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def content_of(folder):
    return page_content(read_run(folder))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise of 120 pixels in folders whose names would be code if a page let them."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 5)):
        for label, name in enumerate(HOSTILE):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (120, 120, 3), dtype=np.uint8) + np.uint8(60 * label)
                Image.fromarray(pixels).save(folder / f"<b>{i}.png")
    return root


def train(folder: Path, *words: str) -> Path:
    """Trains in this process; returns the folder of the run."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        code = exit_code_of(lambda: dispatch([*SMALL, *words]))
    finally:
        os.chdir(before)
    assert code == 0
    return max((folder / "outputs").glob("*/*/*"), key=lambda run: run.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A run on photographs with an augmentation, as its command left it."""
    words = ("data=image_folder", f"data.root='{photos}'", "data.image_size=112", "augment=flip_crop")
    return train(tmp_path_factory.mktemp("run"), *words, "trainer.epochs=2", "data.loader=memory")


def test_training_leaves_its_page_and_plots(trained):
    card = json.loads((trained / "run.json").read_text())
    text = text_of(trained / "report.html")
    assert f"{100 * card['test']['accuracy']:.1f} % [" in text
    assert "95 % interval over 15 images" in text
    assert "cvtrain augment=flip_crop data=image_folder" in text
    assert "This run" not in text, "it is done"
    assert "cannot be" not in text, "nothing is missing"
    plots = {path.name for path in (trained / "plots").iterdir()}
    names = ("training_curves", "confusion_matrix", "calibration")
    assert plots == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert 0 <= card["data_wait_share"] <= 1


def test_page_made_again_is_the_same(trained):
    before = (trained / "report.html").read_bytes()
    assert write_run_page(trained).read_bytes() == before


def test_names_from_outside_are_text(trained):
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "<b>0.png" not in page
    assert "\u202e" not in page
    text = text_of(trained / "report.html")
    assert HOSTILE[0] in text
    assert r"a \"quoted\"".replace("\\", "") in text
    assert r"\u202emore" in text


def test_pictures_are_those_of_the_files(trained, photos):
    material = json.loads((trained / "report.json").read_text())
    chosen = material["random_predictions"]
    rows = {answer.image: answer for answer in read_run(trained).answers}
    assert len(chosen) == 12
    for picture in chosen:
        answer = rows[picture["name"]]
        assert picture["probability"] == pytest.approx(answer.probability, abs=1e-5)
        assert (picture["label"] == picture["prediction"]) == (answer.label == answer.prediction)
    worst = [picture["probability"] for picture in material["worst_errors"]]
    wrong = [answer.probability for answer in rows.values() if answer.label != answer.prediction]
    assert worst == pytest.approx(sorted(wrong, reverse=True)[:12], abs=1e-5)
    assert {picture["label"] for picture in material["class_examples"]} == set(map(printable, HOSTILE))


def test_large_pictures_are_small_jpegs(trained):
    material = json.loads((trained / "report.json").read_text())
    pictures = [p for kind in ("class_examples", "augmented_examples", "worst_errors") for p in material[kind]]
    files = [base64.b64decode(picture["image"]) for picture in pictures]
    assert {(Image.open(io.BytesIO(file)).format, Image.open(io.BytesIO(file)).size) for file in files} == {
        ("JPEG", (96, 96))
    }
    assert len((trained / "report.json").read_bytes()) < 60 * 15_000


def test_augmented_examples_are_those_of_training(tmp_path):
    """Small pictures are kept without loss, so they can be compared with what the model is given."""
    words = ("augment=flip_crop", "data.max_per_class=5", "seed=3", "trainer.batch_size=16")
    config = compose([*SMALL, *words])
    prepared = build.data(config)
    model = build.model(config, prepared.facts, num_outputs=10)
    write_material(RunDir(tmp_path), config, prepared, model=model, split="test", result=None, warn=pytest.fail)
    inputs = build.train_inputs(config, prepared, device=torch.device("cpu"))
    mean, std = prepared.facts.statistics.mean[0], prepared.facts.statistics.std[0]
    seen = {}
    for epoch in range(5):
        for batch in inputs.epoch(epoch):
            pixels = ((batch.images * std + mean) * 255).round()
            seen |= {(epoch, int(i)): image[0].numpy() for i, image in zip(batch.indices, pixels, strict=True)}
    pictures = json.loads((tmp_path / "report.json").read_text())["augmented_examples"]
    assert len(pictures) == 20
    for picture in pictures:
        stored = np.array(Image.open(io.BytesIO(base64.b64decode(picture["image"]))))
        assert np.array_equal(stored, seen[picture["epoch"] - 1, int(picture["name"])])


@pytest.mark.parametrize("augment", ["mixup", "cutmix"])
def test_mixed_examples_tell_of_both_images(augment):
    config = compose([*SMALL, f"augment={augment}", "data.max_per_class=5"])
    prepared = build.data(config)
    shown = Shown(*prepared.part("train"), prepared.facts.class_names)
    pictures = augmented_examples(shown, build.augmentation(config, prepared.facts), seed=1)
    mixed = [picture for picture in pictures if "weight" in picture]
    assert mixed
    assert all(picture["label"] != picture["other_label"] and 0 <= picture["weight"] <= 1 for picture in mixed)


def test_whatever_lacks_of_the_material_costs_a_sentence(tmp_path):
    config, said = compose([*SMALL, "data.max_per_class=5"]), []
    prepared = build.data(config)
    other = nn.Linear(3, 2)  # does not take such images
    write_material(RunDir(tmp_path), config, prepared, model=other, split="test", result=None, warn=said.append)
    material = json.loads((tmp_path / "report.json").read_text())
    assert len(material["class_examples"]) == 10
    assert "model" not in material
    assert len(said) == 1
    assert said[0].startswith("the report lacks its model: ")


def test_diverged_run_says_so_first(command):
    result = command("data.max_per_class=20", "optimizer=sgd", "optimizer.lr=1e9", "trainer.grad_clip=null")
    (page,) = Path("outputs/train").glob("*/*/report.html")
    text = text_of(page)
    assert result.code == 5
    assert 0 <= text.index("This run failed. diverged: ") < text.index("Parameters")
    assert "cvtrain resume=" not in text, "it would diverge again"
    assert "A training image of each class" in text


def test_page_that_cannot_be_written_costs_a_warning_only(command, monkeypatch, tmp_path):
    monkeypatch.setattr("cvtrain.report.page.TEMPLATES_DIR", tmp_path)  # as of a broken installation
    result = command("model=mlp", "data.max_per_class=10", "trainer.epochs=1")
    (run,) = Path("outputs/train").glob("*/*")
    assert result.code == 0
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    assert re.search(
        r"warning: report\.html could not be written: .*; to try again: cvtrain task=report run=", result.out
    )
    assert re.search(rf"^results +{run}$", result.out, re.MULTILINE)


def test_evaluation_has_a_page(trained, tmp_path, command):
    result = command("task=evaluate", f"checkpoint={trained}", "split=val")
    (page,) = Path("outputs/evaluate").glob("*/*/report.html")
    assert result.code == 0
    assert "val accuracy, with its 95 % interval over 3 images" in text_of(page)
    assert "mlp on image_folder, evaluated" in text_of(page)


def test_points_have_no_pictures(tmp_path):
    run = train(tmp_path, "data=spiral", "augment=none", "trainer.epochs=1", "data.per_class=20")
    text = text_of(run / "report.html")
    assert "Pictures" not in text
    assert "points" in text
    assert "task=predict" not in text
    assert (run / "plots" / "decision_boundary.png").is_file()


# ------------------------------------------------------------------------------------------- folders by hand


def test_hundred_classes_with_photographs_stay_small(tmp_path):
    names = [f"{name} {'long ' * 58}" for name in class_names(100)]
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=85)
    picture = {"image": base64.b64encode(buffer.getvalue()).decode(), "name": "n" * 200, "label": names[0]}
    answered = picture | {"prediction": names[1], "probability": 0.9}
    material = {"class_counts": {split: [3] * 100 for split in ("train", "val", "test")}}
    material |= {"class_examples": [picture] * 12, "augmented_examples": [picture | {"epoch": 1}] * 20}
    material |= {"worst_errors": [answered] * 12, "random_predictions": [answered] * 12}
    run = write_run(tmp_path / "run", names, material=material)
    page = write_run_page(run)
    assert page.stat().st_size < MAX_PAGE_BYTES
    assert "Confusion matrix" in page.read_text()


def test_more_classes_have_no_matrix_but_their_pairs(tmp_path):
    content = content_of(write_run(tmp_path / "run", class_names(101)))
    assert content["confusion"] is None
    assert len(content["pairs"]) == 10
    assert content["troubles"] == []


def test_page_that_is_too_large_leaves_pictures_out(tmp_path):
    large = base64.b64encode(b"\xff\xd8\xff" + bytes(200_000)).decode()
    picture = {"image": large, "name": "n", "label": "a", "prediction": "b", "probability": 0.9}
    run = write_run(tmp_path / "run", material={"worst_errors": [picture] * 20})
    text = text_of(write_run_page(run))
    assert "pictures and the matrix are left out" in text


def test_pairs_are_the_most_frequent_errors(tmp_path):
    run = write_run(tmp_path / "run", class_names(3), per_class=10)
    card = json.loads((run / "run.json").read_text())
    card.pop("checksum")
    card["test"]["confusion_matrix"] = [[7, 3, 0], [0, 9, 1], [5, 0, 5]]
    (run / "run.json").write_text(json.dumps(card))
    rows = content_of(run)["pairs"]
    assert rows[0] == ["class 2", "class 0", 5, 0.5, pytest.approx(5 / 9)]
    assert [row[2] for row in rows] == [5, 3, 1]


def test_run_without_errors_says_so(tmp_path):
    run = write_run(tmp_path / "run", num_errors=0, material={"worst_errors": [], "class_counts": {}})
    text = text_of(write_run_page(run))
    assert "There is no error to show." in text
    assert "100.0 % [75.8, 100.0]" in text


def test_two_classes_have_their_auroc(tmp_path):
    assert "AUROC 0.9 of class b" in text_of(write_run_page(write_run(tmp_path / "run", ("a", "b"))))


@pytest.mark.parametrize("rows", [ROWS.rsplit("2,6", 1)[0], ROWS.replace("1.9,0.35", ",").replace("1.2,0.55", ",")])
def test_single_epoch_and_no_validation_have_curves(tmp_path, rows):
    run = write_run(tmp_path / "run", rows=rows, best=None)
    content = content_of(run)
    assert len(content["curves"]) == 3
    assert content["troubles"] == []
    assert "Best validation" not in text_of(write_run_page(run))


def test_run_without_a_test_has_no_headline(tmp_path):
    run = write_run(tmp_path / "run", test=None, status="stopped", error="stopped by signal 15 (SIGTERM)")
    text = text_of(write_run_page(run))
    assert "This run was stopped before its end. stopped by signal 15 (SIGTERM)" in text
    assert f"cvtrain resume={run}" in text
    assert "accuracy, with its" not in text
    assert "Learning curves" in text


@pytest.mark.parametrize(
    ("name", "content", "lost"),
    [
        ("metrics.csv", "epoch,step\n1,x\n", "curves"),
        ("predictions.csv", "image,label\n1,a\n", "calibration"),
        ("predictions.csv", "image,label,prediction,probability\n1,a,a,7\n", "calibration"),
        ("report.json", "[", "count_rows"),
        ("report.json", json.dumps({"worst_errors": [SVG]}), "worst"),
        ("report.json", json.dumps({"class_counts": {"train": 3}}), "count_rows"),
        ("report.json", json.dumps({"model": {"layers": 3}}), "layer_rows"),
    ],
)
def test_damaged_file_costs_its_section_and_a_sentence(tmp_path, name, content, lost):
    run = write_run(tmp_path / "run", material={})
    (run / name).write_text(content)
    found = content_of(run)
    assert not found[lost]
    assert found["troubles"]
    assert found["headline"].figure.startswith("75.0 %")
    assert found["troubles"][0] in text_of(write_run_page(run))


def test_page_without_a_card_shows_what_is_left(tmp_path, trained):
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / "run.json").write_text((copy / "run.json").read_text().replace('"seed": 0', '"seed": 1'))
    text = text_of(write_run_page(copy))
    assert "run.json cannot be used" in text
    assert "How this run ended is not known." in text
    assert "Learning curves" in text


def test_half_a_row_of_a_killed_process_is_passed_over(tmp_path):
    run = write_run(tmp_path / "run", rows=ROWS + "3,9,0.8,0.7")
    assert [row["epoch"] for row in read_run(run).rows] == [1, 2]


def test_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        write_run_page(tmp_path)


def test_settings_show_no_secret(tmp_path):
    run = write_run(tmp_path / "run", typed={"data.token": "***"})
    config = compose([]) | {"data": {"token": "hush"}}
    (run / "config.yaml").write_text(save_text(config).replace("'***'", "hush").replace("***", "hush"))
    assert "hush" in (run / "config.yaml").read_text()
    assert "hush" not in write_run_page(run).read_text()
