"""The picture of a sweep: drawn whatever there is to draw, with a caption that says how often and on what."""

import pytest
from PIL import Image

from cvtrain.sample_size.conclusion import conclude
from cvtrain.sample_size.picture import caption_of, draw
from cvtrain.sample_size.table import Row


def concluded(counts, *, target=None):
    """A conclusion of so many runs at each size, all of which reach what chance does."""
    rows = [
        Row(size, r, 8 * size, 2 * size, 9, 9, "finished", 1, 1, min(0.1 + 0.05 * size**0.4 + 0.01 * r, 1), 1, 1, "ab")
        for size, count in counts.items()
        for r in range(count)
    ]
    return conclude(rows, chance_accuracy=0.1, num_test=1000, target=target, elbow=0.02, validate=False)


@pytest.mark.parametrize("counts", [{10: 1}, {10: 1, 20: 1}, {10: 3, 20: 3, 50: 2, 100: 2, 200: 1}])
def test_every_sweep_has_a_picture(counts, tmp_path):
    draw(tmp_path / "plots" / "curve.png", concluded(counts, target=0.6), title="mlp on digits")
    with Image.open(tmp_path / "plots" / "curve.png") as image:
        assert image.format == "PNG"
        assert image.size[0] > 400
        assert len(image.convert("L").getcolors()) > 20, "something is drawn"


def test_caption_says_how_many_runs_and_why_nothing_is_extrapolated():
    assert caption_of(concluded({10: 2})).startswith("2 runs at each size, each on other images; 1,000 test images;")
    assert caption_of(concluded({10: 1})).startswith("1 run at each size")
    several = caption_of(concluded({10: 3, 20: 2}))
    assert several.startswith("3 to 2 runs at each size")
    assert "not extrapolated: " in several
    assert "not extrapolated" not in caption_of(concluded({10: 3, 20: 3, 50: 2, 100: 2, 200: 2}))
