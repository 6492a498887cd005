"""One fixed order of pixels: what it does to images, where it holds, and what it means to a fully connected net."""

import csv
import json

import numpy as np
import pytest
import torch

import cvtrain
from cvtrain import build
from cvtrain.cli import dispatch
from cvtrain.compose import compose
from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batches
from cvtrain.data.facts import DataFacts
from cvtrain.data.images import ImageSet, MemoryImages, Preprocessing
from cvtrain.data.inputs import EvalInputs, TrainInputs
from cvtrain.data.permutation import PermutePixels, permutation_of, with_permutation
from cvtrain.data.statistics import Normalize, Statistics
from cvtrain.ending import exit_code_of
from cvtrain.engine.trainer import Trainer
from cvtrain.errors import ConfigError

CPU = torch.device("cpu")
NORMALIZE = Normalize(Statistics((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))


def image_set(count=12, size=6):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)
    return ImageSet(MemoryImages(pixels), torch.arange(count) % 3)


def batches_of(images):
    return Batches(images, torch.arange(len(images)), batch_size=5, device=CPU)


# --------------------------------------------------------------------------------------------------- the order


def test_every_pixel_goes_to_one_place_of_its_own():
    permute = PermutePixels(3, image_size=5)
    image = torch.arange(25).view(1, 1, 5, 5)
    moved = permute(image)
    assert sorted(moved.flatten().tolist()) == list(range(25))
    assert torch.equal(moved.flatten(), permute.order)
    assert not torch.equal(moved, image)


def test_channels_of_a_pixel_stay_together():
    image = torch.arange(16).view(1, 1, 4, 4) * torch.tensor([1, 100, 10_000]).view(1, 3, 1, 1)
    moved = PermutePixels(0, image_size=4)(image)
    assert torch.equal(moved[:, 1], 100 * moved[:, 0])
    assert torch.equal(moved[:, 2], 10_000 * moved[:, 0])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_inverse_brings_the_image_back(memory_format):
    images = torch.randn(3, 2, 6, 6).contiguous(memory_format=memory_format)
    before, permute = images.clone(), PermutePixels(9, image_size=6)
    assert torch.equal(permute.inverse(permute(images)), images)
    assert torch.equal(images, before)
    assert permute(images).is_contiguous(memory_format=torch.channels_last)


def test_each_seed_has_an_order_of_its_own_that_stays():
    orders = [PermutePixels(seed, image_size=8).order for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert PermutePixels(0, image_size=4).order.tolist() == ORDER
    assert PermutePixels(0, image_size=4).state_dict() == {}


ORDER = [12, 8, 14, 3, 6, 1, 13, 15, 11, 10, 5, 4, 0, 9, 2, 7]
"""A checkpoint holds the seed only: another order would make nonsense of every model trained on this one."""


def test_no_order_is_made_where_none_is_wished():
    assert permutation_of(Preprocessing(8, 3), device=CPU) is None
    assert with_permutation(Preprocessing(8, 3), None) == Preprocessing(8, 3)
    assert with_permutation(Preprocessing(8, 3), 0).permute_pixels == 0
    assert permutation_of(Preprocessing(8, 3, permute_pixels=0), device=CPU) is not None


def test_a_single_pixel_has_no_order():
    with pytest.raises(ConfigError, match=r"data\.permute_pixels=0 has no effect"):
        with_permutation(Preprocessing(1, 2), 0)


# ------------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    "augment", [Augment(), Augment(crop_padding=2, flip="random", cutout=2), Augment(mixup=0.5), Augment(cutmix=1.0)]
)
def test_permuted_inputs_are_the_plain_ones_moved_after_all_else(augment):
    images, permute = image_set(), PermutePixels(4, image_size=6)
    plain = TrainInputs(batches_of(images), augment, NORMALIZE, seed=1)
    permuted = TrainInputs(batches_of(images), augment, NORMALIZE, seed=1, permute=permute)
    for ours, theirs in zip(permuted.epoch(1), plain.epoch(1), strict=True):
        assert torch.equal(ours.images, permute(theirs.images))
        for column, other in zip(ours[1:], theirs[1:], strict=True):
            assert (column is None and other is None) or torch.equal(column, other)
    evaluated = zip(
        EvalInputs(batches_of(images), NORMALIZE, permute=permute),
        EvalInputs(batches_of(images), NORMALIZE),
        strict=True,
    )
    for ours, theirs in evaluated:
        assert torch.equal(ours.images, permute(theirs.images))
        assert torch.equal(ours.labels, theirs.labels)


@pytest.mark.parametrize("loader", ["memory", "files"])
def test_every_split_of_every_loader_is_permuted_alike(loader, tmp_path, write_images):
    counts = {f"{split}/{name}": 4 for split in ("train", "test") for name in ("a", "b")}
    root = write_images(tmp_path / "tree", counts, size=8)
    words = ["data=image_folder", f"data.root={root}", f"data.loader={loader}", f"data.cache_dir={tmp_path / 'c'}"]
    words += ["data.val_fraction=0.25", "data.num_workers=0", "augment=none", "trainer.device=cpu"]
    plain_config, config = compose(words), compose([*words, "data.permute_pixels=5"])
    plain, prepared = build.data(plain_config), build.data(config)
    permute = PermutePixels(5, image_size=8)
    assert build.fits_in_memory(prepared) == (loader == "memory")

    def pairs(make):
        return zip(make(config, prepared), make(plain_config, plain), strict=True)

    def train_batches(settings, data):
        return build.train_inputs(settings, data, device=CPU).epoch(0)

    for ours, theirs in pairs(train_batches):
        assert torch.equal(ours.images, permute(theirs.images))
    for split in ("val", "test"):
        for ours, theirs in pairs(lambda c, p, s=split: build.eval_inputs(c, p, s, facts=p.facts, device=CPU)):
            assert torch.equal(ours.images, permute(theirs.images))


def test_data_and_split_stay_the_same_and_settings_do_not(tmp_path):
    words = ["data=digits", "model=linear"]
    plain, permuted = (build.data(compose([*words, *more])) for more in ([], ["data.permute_pixels=1"]))
    assert plain.facts.fingerprint == permuted.facts.fingerprint
    assert plain.facts.split_hash == permuted.facts.split_hash
    assert plain.facts.statistics == permuted.facts.statistics
    assert plain.facts.preprocessing != permuted.facts.preprocessing


# -------------------------------------------------------------------------------------- what it means to an MLP


def trainer_of(words):
    """The parts of a run, with Trainer and inputs as `task=train` makes them."""
    config = compose(words)
    prepared = build.data(config)
    loss_fn = build.loss(config, prepared.facts)
    network, _ = build.initialised_model(config, prepared.facts, num_outputs=loss_fn.num_outputs)
    compute = build.compute(config, network)
    compute.place(network)
    inputs = build.train_inputs(config, prepared, device=CPU)
    trainer = Trainer(
        network,
        loss_fn,
        optimizer=build.optimizer(config, network, device=CPU),
        schedule=build.schedule(config, total_steps=100, steps_per_epoch=len(inputs)),
        inputs=inputs,
        evaluate_fn=None,
        compute=compute,
        total_steps=100,
        seed=0,
        evaluate_every=100,
    )
    return trainer, network, prepared


def test_fully_connected_net_learns_the_same_from_permuted_pixels():
    words = [
        "data=digits",
        "data.image_size=16",
        "model=fc2",
        "trainer.device=cpu",
        "trainer.precision=fp32",
        "trainer.batch_size=64",
    ]
    words += ["optimizer=momentum", "optimizer.lr=0.05", "augment.crop_padding=2"]
    plain_trainer, plain, _ = trainer_of(words)
    permuted_trainer, permuted, prepared = trainer_of([*words, "data.permute_pixels=11"])
    order = permutation_of(prepared.facts.preprocessing, device=CPU).order
    start = plain.hidden.fc1.weight.detach().clone()
    with torch.no_grad():
        permuted.hidden.fc1.weight.copy_(start[:, order])
    for one, other in zip(plain_trainer.run(), permuted_trainer.run(), strict=True):
        assert one.step == other.step
    assert plain_trainer.step == permuted_trainer.step == 100
    assert (plain.hidden.fc1.weight - start).abs().max() > 0.01
    found, expected = dict(permuted.named_parameters()), dict(plain.named_parameters())
    for name, parameter in expected.items():
        wanted = parameter[:, order] if name == "hidden.fc1.weight" else parameter
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------- trained models


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An MLP trained on permuted digits, which knows nothing of plain ones."""
    root = tmp_path_factory.mktemp("runs")
    words = ["data=digits", "data.permute_pixels=3", "data.image_size=16", "model=mlp", "model.hidden=[32]"]
    words += ["trainer.device=cpu", "trainer.epochs=6", f"output_dir={root}"]
    assert exit_code_of(lambda: dispatch(words)) == 0
    return next(root.glob("train/*/*"))


def test_loaded_model_puts_pictures_into_the_order_it_was_trained_on(trained):
    model = cvtrain.load(trained, device="cpu")
    assert model.facts.preprocessing.permute_pixels == 3
    test = build.data(compose(["data=digits", "data.image_size=16"])).source.test
    predictions = model.predict(list(test.images.pixels.numpy()))
    with open(trained / "predictions.csv", encoding="utf-8", newline="") as file:
        assert [p.class_name for p in predictions] == [row["prediction"] for row in csv.DictReader(file)]
    accuracy = np.mean([int(p.class_name) == label for p, label in zip(predictions, test.labels.tolist(), strict=True)])
    assert accuracy == pytest.approx(json.loads((trained / "run.json").read_text())["test"]["accuracy"])
    assert accuracy > 0.8


@pytest.mark.parametrize("words", [[], ["data=digits", "data.image_size=16"], ["data.permute_pixels=3"]])
def test_checkpoint_rules_the_order_when_it_is_evaluated(command, trained, words):
    result = command("task=evaluate", f"checkpoint={trained}", "trainer.device=cpu", *words)
    assert result.code == 0, result.errors
    tested = json.loads((trained / "run.json").read_text())["test"]
    assert f"test accuracy  {100 * tested['accuracy']:.1f} % of 360" in result.out


def test_another_order_cannot_be_typed_for_a_trained_model(command, trained):
    result = command("task=evaluate", f"checkpoint={trained}", "data.permute_pixels=4")
    assert result.code == 2
    assert "data.permute_pixels=4: the checkpoint was trained with data.permute_pixels=3" in result.errors[0]
    result = command(f"resume={trained}", "data.permute_pixels=4")
    assert result.code == 2
    assert "data.permute_pixels" in result.errors[0]


def test_facts_of_older_checkpoints_have_no_order():
    facts = DataFacts(
        class_names=("cat", "dog"),
        class_counts=(3, 4),
        preprocessing=Preprocessing(32, 3, permute_pixels=6),
        statistics=Statistics((0.1,) * 3, (0.4,) * 3),
        fingerprint="ab",
        split_hash="cd",
    )
    plain = facts.to_plain()
    assert DataFacts.from_plain(plain) == facts
    del plain["preprocessing"]["permute_pixels"]
    assert DataFacts.from_plain(plain).preprocessing.permute_pixels is None
