"""The drawings: what they show, that they are whole files, and that what is odd does not stop them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cvtrain.analysis.calibration import calibration as calibration_of
from cvtrain.report.plots import COLORS, calibration, confusion_matrix, decision_boundary, lr_grid, training_curves


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def has_color(pixels, color, *, at_least=20):
    """Whether so many pixels have nearly this colour."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (abs(pixels - wanted).max(-1) <= 12).sum() >= at_least


def halves(points):
    """A model that is sure of class 0 on the left and of class 1 on the right."""
    right = 1 / (1 + np.exp(-20 * points[:, 0]))
    return np.stack([1 - right, right], 1)


def draw_halves(path, **changes):
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, (400, 2))
    arguments = {"probabilities_fn": halves, "class_names": ("left", "right"), "title": "halves: 100 %"} | changes
    decision_boundary(path, points, (points[:, 0] > 0).astype(int), **arguments)
    return pixels_of(path)


def test_boundary_shows_points_over_the_regions_of_their_classes(tmp_path):
    pixels = draw_halves(tmp_path / "plots" / "boundary.png")
    height, width, _ = pixels.shape
    assert (height, width) == (640, 700)
    left, right = pixels[:, : width // 2], pixels[:, width // 2 + 40 :]
    # The upper part: the legend below shows both colours.
    assert has_color(left[: height // 2], COLORS[0], at_least=200)
    assert not has_color(left[: height // 2], COLORS[1])
    assert has_color(right[: height // 2], COLORS[1], at_least=200)
    assert not has_color(right[: height // 2], COLORS[0])
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["boundary.png"]


def test_regions_are_paler_where_the_model_is_less_sure(tmp_path):
    sure = draw_halves(tmp_path / "sure.png")
    unsure = draw_halves(tmp_path / "unsure.png", probabilities_fn=lambda points: 0.5 + 0.1 * (halves(points) - 0.5))
    assert unsure.mean() > sure.mean() + 10


def test_a_model_that_knows_one_class_only_can_be_drawn(tmp_path):
    pixels = draw_halves(tmp_path / "one.png", probabilities_fn=lambda points: np.tile([0.9, 0.1], (len(points), 1)))
    assert has_color(pixels, COLORS[0])


def test_more_classes_than_colours_can_be_drawn(tmp_path):
    count = len(COLORS) + 2
    points = np.random.default_rng(0).normal(size=(50, 2))
    names = [f"class {i}" for i in range(count)]
    decision_boundary(
        tmp_path / "many.png",
        points,
        np.arange(50) % count,
        probabilities_fn=lambda grid: np.random.default_rng(0).dirichlet(np.ones(count), len(grid)),
        class_names=names,
        title="many",
    )
    assert pixels_of(tmp_path / "many.png").std() > 5


@pytest.mark.parametrize("title", ["$ 5 $ and _ ^ {", "Bücher 花 \u2003", ""])
def test_titles_and_names_are_written_as_they_are(tmp_path, title):
    draw_halves(tmp_path / "title.png", title=title, class_names=(title, "$x"))
    assert (tmp_path / "title.png").stat().st_size > 5000


def test_curves_show_training_and_validation(tmp_path):
    rows = [
        {
            "epoch": str(i),
            "train_loss": f"{2 * 0.8**i:.5g}",
            "train_accuracy": f"{1 - 0.8**i:.5g}",
            "val_loss": str(2 * 0.85**i),
            "val_accuracy": str(1 - 0.85**i),
        }
        for i in range(1, 9)
    ]
    training_curves(tmp_path / "both.png", rows)
    both = pixels_of(tmp_path / "both.png")
    for half in (both[:330, :450], both[:330, 450:]):
        assert has_color(half, COLORS[0], at_least=100)
        assert has_color(half, COLORS[1], at_least=100)
    training_curves(tmp_path / "train.png", [row | {"val_loss": "", "val_accuracy": ""} for row in rows])
    assert not has_color(pixels_of(tmp_path / "train.png"), COLORS[1])


@pytest.mark.parametrize("steps", [2, 60])
def test_curves_bear_gaps_huge_ranges_and_numbers_that_are_not_finite(tmp_path, steps):
    rows = [
        {"epoch": i / 3, "train_loss": 10.0**-i, "train_accuracy": None, "val_loss": "nan" if i % 2 else "3"}
        for i in range(steps)
    ]
    rows[0]["train_loss"] = float("inf")
    training_curves(tmp_path / "odd.png", rows)
    pixels = pixels_of(tmp_path / "odd.png")
    # Where every second value is missing, the line still goes on.
    assert has_color(pixels[:330], COLORS[1], at_least=300 if steps > 2 else 10)


def test_grid_shows_every_arm_with_its_band(tmp_path):
    arms = {
        name: [(lr, 0.4 + 0.1 * i + 0.05 * j, 0.05) for j, lr in enumerate((0.001, 0.01, 0.1))]
        for i, name in enumerate(("sgd", "momentum", "adam"))
    }
    lr_grid(tmp_path / "grid.png", arms, metric="test_accuracy", title="spiral")
    pixels = pixels_of(tmp_path / "grid.png")
    for color in COLORS[:3]:
        assert has_color(pixels, color, at_least=300)
    assert not has_color(pixels, COLORS[3])


@pytest.mark.parametrize(
    "series",
    [
        {},
        {"none": []},
        {"one": [(0.1, 0.5, float("nan"))]},
        {"nan": [(0.1, float("nan"), 0.0), (0.2, 0.5, 0.0)], "end": [(0.1, 0.5, 0.0), (0.2, float("nan"), 0.0)]},
        {f"arm {i}": [(0.01, 0.99, 0.0), (0.02, 0.99, 0.0)] for i in range(9)},
    ],
)
def test_grid_bears_few_and_equal_figures(tmp_path, series):
    lr_grid(tmp_path / "grid.png", series, metric="val_loss", title="few")
    assert pixels_of(tmp_path / "grid.png").shape == (480, 800, 3)


def test_an_old_drawing_stays_when_a_new_one_fails(tmp_path):
    before = draw_halves(tmp_path / "plot.png")

    def broken(points):
        raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        draw_halves(tmp_path / "plot.png", probabilities_fn=broken)
    assert np.array_equal(pixels_of(tmp_path / "plot.png"), before)
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


# ------------------------------------------------------------------------------------------------- plots of a run

WORDS = ("data=spiral", "data.per_class=30", "trainer.device=cpu", "trainer.batch_size=30")


@pytest.mark.parametrize("size", [1, 2, 30, 60])
def test_confusions_are_drawn_for_any_number_of_classes(tmp_path, size):
    counts = np.eye(size, dtype=int) * 9
    counts[0] = 0  # a class without images
    names = [f"$class$ {i} <b>" * 9 for i in range(size)]
    confusion_matrix(tmp_path / "m.png", counts.tolist(), names, title="test accuracy 90 %")
    assert (tmp_path / "m.svg").read_text().startswith("<?xml")
    assert has_color(pixels_of(tmp_path / "m.png"), "#08306b") == (size > 1), "the diagonal is dark where all is right"


def test_calibration_shows_the_bins_that_have_images(tmp_path):
    calibration(tmp_path / "c.png", calibration_of([0.2, 0.9, 0.95], [False, True, True]), title="calibration")
    assert has_color(pixels_of(tmp_path / "c.png"), COLORS[0])
    assert (tmp_path / "c.svg").stat().st_size > 1000


def test_a_run_leaves_its_plots_and_one_evaluation_makes_no_curve(command, tmp_path):
    assert command(*WORDS, "trainer.epochs=1").code == 0
    (plots,) = tmp_path.glob("outputs/train/*/*/plots")
    assert {path.stem for path in plots.iterdir()} == {"calibration", "confusion_matrix", "decision_boundary"}


def test_pictures_have_curves_and_no_boundary(command, tmp_path):
    words = ("data=synthetic", "data.image_size=8", "data.per_class=5", "model=linear", "trainer.device=cpu")
    assert command(*words, "trainer.epochs=2").code == 0
    (plots,) = tmp_path.glob("outputs/train/*/*/plots")
    names = ("calibration", "confusion_matrix", "training_curves")
    assert {path.name for path in plots.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def test_a_plot_that_cannot_be_drawn_costs_a_warning_and_not_the_run(command, tmp_path):
    assert command(*WORDS, "trainer.epochs=1").code == 0
    (run,) = tmp_path.glob("outputs/train/*/*")
    shutil.rmtree(run / "plots")
    (run / "plots").write_text("no folder")
    result = command(f"resume={run}", "trainer.epochs=2")
    assert result.code == 0, result.errors
    assert result.out.count("warning: a plot could not be drawn") == 2
    assert json.loads((run / "run.json").read_text())["status"] == "done"
