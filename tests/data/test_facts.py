from dataclasses import replace

import pytest
import torch

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.data.digits import load_digits
from cvtrain.data.facts import DataFacts
from cvtrain.data.images import Preprocessing
from cvtrain.data.known import known_facts
from cvtrain.data.spiral import load_spiral
from cvtrain.data.statistics import Statistics
from cvtrain.data.synthetic import load_synthetic


def test_facts_survive_a_checkpoint(tmp_path):
    facts = DataFacts(
        class_names=("cat", "dog"),
        class_counts=(3, 4),
        preprocessing=Preprocessing(32, 3, "pad"),
        statistics=Statistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        fingerprint="ab",
        split_hash="cd",
    )
    torch.save(facts.to_plain(), tmp_path / "facts")
    again = DataFacts.from_plain(torch.load(tmp_path / "facts", weights_only=True))
    assert again == facts
    assert again.appearance is None
    assert (again.num_classes, again.in_channels, again.image_size) == (2, 3, 32)


def test_appearance_is_a_fact_that_survives_a_checkpoint_and_that_older_ones_lack(tmp_path):
    found = build.data(compose(["data=digits", "data.image_size=8"])).facts
    torch.save(found.to_plain(), tmp_path / "facts")
    plain = torch.load(tmp_path / "facts", weights_only=True)
    assert DataFacts.from_plain(plain) == found
    assert found.appearance is not None
    del plain["appearance"]
    assert DataFacts.from_plain(plain) == replace(found, appearance=None)
    assert build.data(compose(["data=digits", "data.max_per_class=2"])).facts.appearance is None, "too few to say"
    assert build.data(compose(["data=spiral"])).facts.appearance is None, "points have no looks"


@pytest.mark.parametrize(
    ("target", "load", "settings"),
    [
        ("digits.load_digits", load_digits, {"image_size": 16}),
        ("spiral.load_spiral", load_spiral, {"num_classes": 4, "per_class": 5}),
        (
            "synthetic.load_synthetic",
            load_synthetic,
            {"num_classes": 3, "per_class": 5, "image_size": 12, "channels": 1, "seed": 0},
        ),
    ],
)
def test_known_facts_are_those_of_the_data(target, load, settings):
    known = known_facts({"_target_": f"cvtrain.data.{target}", **settings})
    data = load(**settings)
    assert known.num_classes == len(data.class_names)
    assert (known.channels, known.image_size) == (data.preprocessing.channels, data.preprocessing.image_size)


def test_facts_of_folders_are_not_known():
    assert known_facts({"_target_": "cvtrain.data.folder.load_image_folder", "root": None}) is None
