"""Numbers that are not finite, planted at any step in any place: seen within a step, named, and never taken in."""

import random
import re
from functools import partial

import pytest
import torch
from torch import nn

from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batches
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.data.inputs import EvalInputs, TrainInputs
from cvtrain.engine.averaging import WeightAverage
from cvtrain.engine.device import Compute
from cvtrain.engine.evaluator import evaluate
from cvtrain.engine.events import Evaluation, Step
from cvtrain.engine.finite import CHECK_EVERY, FiniteCheck, all_finite
from cvtrain.engine.trainer import Trainer
from cvtrain.errors import DivergedError
from cvtrain.losses import CrossEntropy
from cvtrain.schedulers import Constant

NUM_IMAGES, NUM_CLASSES, TOTAL_STEPS = 26, 5, 12
CPU = Compute(torch.device("cpu"), channels_last=False)
VALUES = [float("nan"), float("inf"), float("-inf")]


def small_model():
    generator = torch.Generator().manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, NUM_CLASSES)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def make(*, adam=False, grad_clip=None, precision="fp32", **options):
    """A trainer of a small net on small float images, averaged, validated every 4 steps."""
    pixels = torch.rand(NUM_IMAGES, 6, 6, 3, generator=torch.Generator().manual_seed(0))
    images = ImageSet(MemoryImages(pixels), torch.arange(NUM_IMAGES) % NUM_CLASSES)
    batches = Batches(images, torch.arange(NUM_IMAGES), batch_size=8, device=CPU.device, seed=3)
    model, loss_fn = small_model(), CrossEntropy(num_classes=NUM_CLASSES, class_counts=(1,) * NUM_CLASSES)
    inputs = TrainInputs(batches, Augment(), nn.Identity(), seed=4)
    compute = Compute(CPU.device, precision, channels_last=False)
    optimizer = (torch.optim.Adam if adam else partial(torch.optim.SGD, momentum=0.9))(model.parameters(), lr=0.05)
    return Trainer(
        model,
        loss_fn,
        optimizer=optimizer,
        schedule=Constant(total_steps=TOTAL_STEPS, steps_per_epoch=len(inputs)),
        inputs=inputs,
        evaluate_fn=partial(evaluate, model, loss_fn, EvalInputs(batches, nn.Identity()), compute=compute),
        compute=compute,
        total_steps=TOTAL_STEPS,
        seed=0,
        evaluate_every=4,
        grad_clip=grad_clip,
        average=WeightAverage(model, 0.9),
        **options,
    )


# ------------------------------------------------------------------------------------------------ where to plant


def at_step(trainer, step, plant):
    """Plants before a step is taken."""
    schedule = trainer.schedule
    factor = schedule.factor

    def planting(taken):
        if taken == step - 1:
            plant()
        return factor(taken)

    schedule.factor = planting


def put(tensor, value, draw):
    with torch.no_grad():
        tensor.view(-1)[draw.randrange(tensor.numel())] = value


def in_input(trainer, step, value, draw):
    normalize, calls = trainer.inputs.normalize, []

    def spoiled(images):
        calls.append(None)
        images = normalize(images).clone()
        if len(calls) == step:
            images[draw.randrange(len(images)), 0, draw.randrange(6), draw.randrange(6)] = value
        return images

    trainer.inputs.normalize = spoiled


def in_loss(trainer, step, value, draw):
    def spoiled(_module, _inputs, losses):
        if not trainer.model.training or trainer.step != step - 1:
            return losses
        return losses * torch.ones(len(losses)).index_fill(0, torch.tensor([draw.randrange(len(losses))]), value)

    trainer.loss_fn.register_forward_hook(spoiled)


def in_gradient(trainer, step, value, draw):
    chosen = draw.choice(list(trainer.model.parameters()))

    def spoiled(gradient):
        if trainer.step != step - 1:
            return gradient
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        gradient.view(-1)[draw.randrange(gradient.numel())] = value
        return gradient

    chosen.register_hook(spoiled)


def in_weight(trainer, step, value, draw):
    at_step(trainer, step, lambda: put(draw.choice(list(trainer.model.parameters())), value, draw))


def in_statistic(trainer, step, value, draw):
    norm = trainer.model[1]
    at_step(trainer, step, lambda: put(draw.choice([norm.running_mean, norm.running_var]), value, draw))


def in_optimizer(trainer, step, value, draw):
    def plant():
        states = [state for state in trainer.optimizer.state.values() if state]
        state = draw.choice(states)
        put(state[draw.choice([name for name in state if name != "step"])], value, draw)

    at_step(trainer, max(step, 2), plant)


def in_average(trainer, step, value, draw):
    at_step(trainer, step, lambda: put(draw.choice(trainer.average.averages), value, draw))


PLACES = {
    in_input: "a pixel",
    in_loss: "the loss",
    in_gradient: r"the gradient of \S+",
    in_weight: r"the (loss|gradient of \S+|weight \S+)",
    in_statistic: r"the statistic 1\.running_(mean|var)",
    in_optimizer: "the weight|the state of the optimizer",
    in_average: "an averaged weight",
}


def follow(trainer, yielded):
    for event in trainer.run():
        yielded.append(event)
        trainer.check_finite()  # what would be saved now is finite


@pytest.mark.parametrize("fault", range(56))
def test_planted_number_stops_training_within_a_step_and_nothing_is_yielded_of_it(fault):
    draw = random.Random(fault)
    place = list(PLACES)[fault % len(PLACES)]
    trainer = make(adam=draw.random() < 0.5, grad_clip=draw.choice([None, 0.1]), accumulate=draw.choice([1, 2]))
    step = draw.randint(1, TOTAL_STEPS - 1)
    place(trainer, step, draw.choice(VALUES), draw)
    yielded = []
    with pytest.raises(DivergedError) as caught:
        follow(trainer, yielded)
    step = max(step, 2) if place is in_optimizer else step
    assert len([event for event in yielded if isinstance(event, Step)]) <= step, "one step later at most"
    words = caught.value.message
    found = re.fullmatch(
        r"diverged: (.+) is not a finite number at step (\d+) \(lr 0\.05\); (in|for|its batch:) (.+)", words
    )
    assert found, words
    assert re.match(PLACES[place], found[1]), words
    assert int(found[2]) in (step, step + 1)
    named = {int(i) for i in re.findall(r"image (\d+)", found[4])}
    assert 1 <= len(named) <= 3
    number = int(found[2]) - 1
    batch = list(make().inputs.epoch(number // 4))[number % 4]
    assert named <= set(batch.indices.tolist()), "images of that step"


def test_image_with_a_pixel_that_is_not_finite_is_the_one_that_is_named():
    trainer = make(name_images=lambda indices: [f"cat/{i:03d}.tif" for i in indices.tolist()])
    trainer.inputs.batches._reader.images.pixels[17, 2, 2] = float("inf")
    with pytest.raises(DivergedError, match=r"a pixel is not a finite number .*; in cat/017\.tif$") as caught:
        list(trainer.run())
    assert caught.value.hint == "mend these images, or leave them out"


def test_image_whose_loss_alone_is_not_finite_is_the_one_that_is_named():
    trainer = make()
    place = random.Random(1).randrange(8)
    in_loss(trainer, 1, float("nan"), random.Random(1))
    chosen = int(next(trainer.inputs.epoch(0)).indices[place])
    with pytest.raises(DivergedError, match=rf"; for image {chosen}$") as caught:
        list(trainer.run())
    assert "optimizer.lr=0.005" in caught.value.hint


@pytest.mark.parametrize("figure", ["loss", "cross_entropy"])
def test_validation_figure_that_is_not_finite_is_no_result(figure):
    trainer = make()
    evaluate_fn, observed = trainer.evaluate_fn, []
    trainer.schedule.observe = observed.append

    def spoiled():
        result = evaluate_fn()
        if trainer.step == 8:
            object.__setattr__(result, figure, float("nan"))
        return result

    trainer.evaluate_fn = spoiled
    yielded = []
    with pytest.raises(DivergedError, match="the validation loss is not a finite number at step 8"):
        follow(trainer, yielded)
    assert [event.step for event in yielded if isinstance(event, Evaluation)] == [4]
    assert len(observed) == 1, "the schedule hears of figures only"


def test_scaler_that_skips_steps_is_no_divergence_and_one_that_skips_all_is():
    trainer = make(precision="fp16")
    events = list(trainer.run())
    assert len([e for e in events if isinstance(e, Step)]) == TOTAL_STEPS

    trainer = make(precision="fp16", grad_clip=0.1)
    scale = trainer._step_maker.scaler.get_scale()
    in_gradient(trainer, 3, float("inf"), random.Random(0))
    before = []
    at_step(trainer, 3, lambda: before.extend(p.clone() for p in trainer.model.parameters()))
    for event in trainer.run():
        if isinstance(event, Step) and event.step == 3:
            for ours, theirs in zip(trainer.model.parameters(), before, strict=True):
                assert torch.equal(ours, theirs)
    assert trainer._step_maker.scaler.get_scale() == scale / 2

    trainer = make(precision="fp16")
    trainer._step_maker.scaler.load_state_dict({**trainer._step_maker.scaler.state_dict(), "scale": 2.0**-23})
    for step in (1, 2):
        in_gradient(trainer, step, float("inf"), random.Random(step))
    with pytest.raises(DivergedError, match="the gradient, in fp16 at any scale, is not a finite number at step 2"):
        list(trainer.run())


def test_gradient_that_is_too_large_for_its_norm_is_told_before_it_is_clipped_to_nothing():
    trainer = make(grad_clip=1.0)
    trainer.model[4].bias.register_hook(lambda gradient: gradient + 1e30)
    before = [p.clone() for p in trainer.model.parameters()]
    with pytest.raises(DivergedError, match="the norm of the gradient is not a finite number at step 1"):
        list(trainer.run())
    for ours, theirs in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(ours, theirs)


def test_numbers_on_a_gpu_are_looked_at_now_and_then_and_before_anything_is_kept():
    """What a GPU does differently is a matter of when: a check for one is shown a run on the CPU."""
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    names = lambda indices: [f"image {i}" for i in indices.tolist()]  # noqa: E731
    rest = {"optimizer": optimizer, "average": None, "scaler": scaler, "name_images": names}
    check = FiniteCheck((model, nn.Identity()), device=torch.device("cpu"), **rest)
    check._looks_always = False
    check._seen = type(check._seen)(maxlen=CHECK_EVERY)
    batch = next(make().inputs.epoch(0))
    for step in range(1, 8):
        losses = torch.full((8,), float("nan") if step == 3 else 1.0)
        check.see_losses(step, batch, [losses], is_bad=~torch.isfinite(losses.sum()))
    assert not check.is_time(7)
    assert check.is_time(CHECK_EVERY)
    first = ", ".join(f"image {i}" for i in batch.indices[:3].tolist())
    with pytest.raises(DivergedError, match=rf"the loss .* at step 3 \(lr 0\.1\); its batch: {first} and 5 more"):
        check.check_all(7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("numel", [1, 1000, 2**14, 2**14 + 1])
def test_every_place_of_small_and_large_tensors_is_looked_at(numel, dtype):
    tensors = [torch.ones(3), torch.full((numel,), 3e38, dtype=dtype), torch.arange(4)]
    before = [tensor.clone() for tensor in tensors]
    assert all_finite(tensors), "a sum that overflows is no number that is not finite"
    for ours, theirs in zip(tensors, before, strict=True):
        assert torch.equal(ours, theirs), "looking changes nothing"
    for value in VALUES:
        for place in (0, numel // 2, numel - 1):
            spoiled = torch.zeros(numel, dtype=dtype)
            spoiled[place] = value
            assert not all_finite([torch.ones(3), spoiled])
    assert all_finite([])
