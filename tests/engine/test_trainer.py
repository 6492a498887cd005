import time
import weakref
from functools import partial
from itertools import islice, pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cvtrain.build import ForeignLoss
from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batches
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.data.inputs import EvalInputs, TrainInputs
from cvtrain.data.statistics import Normalize, Statistics
from cvtrain.engine.averaging import WeightAverage
from cvtrain.engine.device import Compute
from cvtrain.engine.diagnosis.measures import StepMeasure
from cvtrain.engine.evaluator import evaluate
from cvtrain.engine.events import Evaluation, Step
from cvtrain.engine.freezing import freeze
from cvtrain.engine.memory import TRAINING, PartedWork
from cvtrain.engine.trainer import Trainer
from cvtrain.errors import MemoryLimitError
from cvtrain.losses import CrossEntropy
from cvtrain.schedulers import Constant, Cosine

NUM_IMAGES, NUM_CLASSES = 26, 5
CPU = Compute(torch.device("cpu"), channels_last=False)
NORMALIZE = Normalize(Statistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))


@pytest.fixture(scope="module")
def image_set():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, 6, 6, 3), generator=generator, dtype=torch.uint8)
    return ImageSet(MemoryImages(pixels), torch.arange(NUM_IMAGES) % NUM_CLASSES)


def plain_model(*, dropout=0.0, norm=False):
    """A small net with seeded weights."""
    generator = torch.Generator().manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(64, NUM_CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def batches_of(image_set, *, batch_size=8):
    return Batches(image_set, torch.arange(NUM_IMAGES), batch_size=batch_size, device=CPU.device, seed=3)


def inputs_of(image_set, *, augment=None, batch_size=8):
    return TrainInputs(batches_of(image_set, batch_size=batch_size), augment or Augment(), NORMALIZE, seed=4)


def cross_entropy():
    return CrossEntropy(num_classes=NUM_CLASSES, class_counts=(1,) * NUM_CLASSES)


def make(image_set, model=None, *, validate=False, **options):
    """A trainer of a small net on small noise, with SGD and momentum."""
    model = model or plain_model()
    loss_fn = options.pop("loss_fn", None) or cross_entropy()
    inputs = options.pop("inputs", None) or inputs_of(image_set, augment=options.pop("augment", None))
    lr, momentum = options.pop("lr", 0.1), options.pop("momentum", 0.9)
    parameters = [p for p in model.parameters() if p.requires_grad]
    evaluate_fn = None
    if validate:
        evaluate_fn = partial(evaluate, model, loss_fn, EvalInputs(batches_of(image_set), NORMALIZE), compute=CPU)
    total_steps = options.pop("total_steps", 10)
    settings = {
        "schedule": Constant(total_steps=total_steps, steps_per_epoch=len(inputs)),
        "evaluate_fn": evaluate_fn,
        "compute": CPU,
        "seed": 0,
        "evaluate_every": 4,
        **options,
    }
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum)
    return Trainer(model, loss_fn, optimizer=optimizer, inputs=inputs, total_steps=total_steps, **settings)


def train(trainer):
    return list(trainer.run())


def evaluations(events):
    return [event for event in events if isinstance(event, Evaluation)]


def weights(trainer):
    return [tensor.clone() for tensor in trainer.model.state_dict().values()]


def assert_same_weights(ours, theirs):
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        assert torch.equal(a, b)


def reference_loop(
    image_set, model, *, total_steps, after_backward=lambda _model: None, after_step=lambda _model: None
):
    """The same training as a loop by hand."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs, step = inputs_of(image_set), 0
    while step < total_steps:
        for batch in inputs.epoch(step // len(inputs)):
            if step == total_steps:
                break
            optimizer.zero_grad()
            losses = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
            (losses.sum() / len(batch.labels)).backward()
            after_backward(model)
            optimizer.step()
            after_step(model)
            step += 1
    return model


# ------------------------------------------------------------------------------------------------ steps


def test_training_equals_a_loop_by_hand_bit_by_bit(image_set):
    trainer = make(image_set, validate=True)
    train(trainer)
    expected = reference_loop(image_set, plain_model(), total_steps=10)
    for ours, theirs in zip(trainer.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_clipped_training_equals_torchs_clipping(image_set):
    norms = []

    def clip(model):
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.3))

    trainer = make(image_set, grad_clip=0.3)
    train(trainer)
    expected = reference_loop(image_set, plain_model(), total_steps=10, after_backward=clip)
    assert max(norms) > 0.3, "the test would show nothing"
    for ours, theirs in zip(trainer.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("augment", [None, Augment(mixup=1.0)])
def test_accumulated_steps_equal_whole_steps(image_set, augment):
    whole, parts = (make(image_set, accumulate=n, augment=augment, validate=True) for n in (1, 3))
    expected, found = evaluations(train(whole)), evaluations(train(parts))
    for ours, theirs in zip(weights(parts), weights(whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
        assert ours.train_accuracy == theirs.train_accuracy


def test_accumulation_works_with_batch_normalisation_in_the_smallest_parts(image_set):
    trainer = make(image_set, nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.BatchNorm1d(5)), accumulate=7)
    assert evaluations(train(trainer))[-1].step == 10  # batches of 8 and 2 images: no part is a single image


def test_mixed_images_are_trained_on_soft_labels(image_set):
    augment = Augment(mixup=1.0)
    trainer = make(image_set, augment=augment, total_steps=1, momentum=0.0)
    train(trainer)
    batch = next(inputs_of(image_set, augment=augment).epoch(0))
    share = batch.weight[:, None]
    soft = share * F.one_hot(batch.labels, 5) + (1 - share) * F.one_hot(batch.other_labels, 5)
    model = plain_model()
    F.cross_entropy(model(batch.images), soft).backward()
    for ours, parameter in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter - 0.1 * parameter.grad, rtol=1e-5, atol=1e-7)


def test_learning_rate_of_each_step_follows_the_schedule(image_set):
    schedule = Cosine(total_steps=10, steps_per_epoch=4)
    trainer = make(image_set, schedule=schedule)
    steps = [event for event in train(trainer) if isinstance(event, Step)]
    assert [s.step for s in steps] == list(range(1, 11))
    assert [s.lr for s in steps] == [0.1 * schedule.factor(i) for i in range(10)]


def test_foreign_loss_that_gives_one_mean_trains_alike(image_set):
    ours, theirs = make(image_set), make(image_set, loss_fn=ForeignLoss(nn.CrossEntropyLoss(), NUM_CLASSES))
    expected, found = evaluations(train(ours)), evaluations(train(theirs))
    assert found[-1].train_loss == pytest.approx(expected[-1].train_loss, rel=1e-5)
    for a, b in zip(weights(theirs), weights(ours), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_half_precision_keeps_weights_and_losses_in_float32(image_set):
    trainer = make(image_set, compute=Compute(CPU.device, "bf16", channels_last=False))
    found = evaluations(train(trainer))
    full = make(image_set)
    assert found[-1].train_loss == pytest.approx(evaluations(train(full))[-1].train_loss, rel=0.05)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert any(not torch.equal(a, b) for a, b in zip(weights(trainer), weights(full), strict=True))


def test_memory_order_changes_nothing_but_rounding(image_set):
    rows, channels = make(image_set), make(image_set, compute=Compute(CPU.device, channels_last=True))
    channels.compute.place(channels.model)
    train(rows), train(channels)
    for a, b in zip(weights(rows), weights(channels), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ events and figures


def test_evaluations_come_at_their_marks_and_at_the_end(image_set):
    events = train(make(image_set, total_steps=10, evaluate_every=4))
    names = " ".join(type(e).__name__[0] + str(e.step) for e in events)
    assert names == "S1 S2 S3 S4 E4 S5 S6 S7 S8 E8 S9 S10 E10"
    assert [e.epoch for e in evaluations(events)] == [1, 2, 2.5]
    assert [type(e.epoch) for e in evaluations(events)] == [int, int, float]
    assert train(make(image_set, total_steps=0)) == []


def test_train_figures_are_means_over_the_images_of_the_interval(image_set):
    """With lr = 0 the weights stay, so the images of each interval can be looked at again."""
    trainer = make(image_set, lr=0.0, total_steps=7, evaluate_every=3)
    batches = [*inputs_of(image_set).epoch(0), *inputs_of(image_set).epoch(1)][:7]
    sizes = [len(b.labels) for b in batches]
    assert sizes == [8, 8, 8, 2, 8, 8, 8]
    for evaluation, (low, high) in zip(evaluations(train(trainer)), [(0, 3), (3, 6), (6, 7)], strict=True):
        images, labels = (torch.cat([b[i] for b in batches[low:high]]) for i in (0, 1))
        logits = plain_model()(images)
        assert evaluation.train_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
        assert evaluation.train_accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
        assert evaluation.val_loss is None
        assert evaluation.val_accuracy is None
        assert evaluation.images_per_second > 0
        assert evaluation.seconds > 0


def test_running_figures_are_those_of_the_next_evaluation_and_begin_anew_after_it(image_set):
    trainer = make(image_set)
    seen = []
    for event in trainer.run():
        seen.append((event, trainer.running_figures()))
    for (before, running), (event, after) in pairwise(seen):
        if isinstance(event, Evaluation):
            assert running.train_loss == event.train_loss
            assert running.images_per_second >= event.images_per_second > 0  # which has waited for the last steps
            assert after is None
        elif isinstance(before, Evaluation):
            assert running is None
    assert sum(figures is not None for _, figures in seen) == trainer.total_steps


def test_running_figures_make_nobody_wait_for_a_device(image_set):
    trainer = make(image_set)
    next(trainer.run())
    trainer._finite._looks_always = False  # as on a GPU, where losses are looked at every 50 steps
    assert trainer.running_figures() is None


def test_time_in_which_batches_are_made_counts_as_waiting(image_set):
    class SlowInputs(TrainInputs):
        def epoch(self, epoch, *, start=0):
            for batch in super().epoch(epoch, start=start):
                time.sleep(0.02)
                yield batch

    trainer = make(image_set, inputs=SlowInputs(batches_of(image_set), Augment(), NORMALIZE, seed=4), total_steps=5)
    assert trainer.data_wait_share is None
    train(trainer)
    assert 5 * 0.02 <= trainer.waiting_seconds < trainer.training_seconds
    assert trainer.data_wait_share == trainer.waiting_seconds / trainer.training_seconds


def test_validation_figures_are_those_of_the_weights_at_that_step(image_set):
    trainer = make(image_set, validate=True, total_steps=4)
    evaluation = evaluations(train(trainer))[0]
    images = NORMALIZE(image_set.images.pixels.permute(0, 3, 1, 2))
    logits = trainer.model.eval()(images)
    assert evaluation.val_loss == pytest.approx(F.cross_entropy(logits, image_set.labels).item(), rel=1e-6)
    assert evaluation.val_accuracy == (logits.argmax(1) == image_set.labels).double().mean().item()
    assert evaluation.lr == 0.1


def test_a_mixed_image_counts_as_what_it_shows_most_of(image_set):
    augment = Augment(mixup=0.2)
    trainer = make(image_set, lr=0.0, augment=augment, total_steps=4)
    evaluation = evaluations(train(trainer))[0]
    correct = 0
    for batch in inputs_of(image_set, augment=augment).epoch(0):
        labels = torch.where(batch.weight >= 0.5, batch.labels, batch.other_labels)
        correct += (plain_model()(batch.images).argmax(1) == labels).sum().item()
    assert evaluation.train_accuracy == correct / NUM_IMAGES


def test_evaluation_does_not_change_training(image_set):
    without = make(image_set, plain_model(dropout=0.5, norm=True), evaluate_every=100)
    often = make(image_set, plain_model(dropout=0.5, norm=True), validate=True, evaluate_every=1)
    evaluate_fn = often.evaluate_fn

    def disturb():
        torch.rand(17)
        return evaluate_fn()

    often.evaluate_fn = disturb
    train(without), train(often)
    assert_same_weights(without, often)


def test_an_evaluation_that_was_asked_to_stop_is_made_later(image_set):
    trainer = make(image_set, validate=True)
    evaluate_fn, trainer.evaluate_fn = trainer.evaluate_fn, lambda: None
    assert [type(event) for event in trainer.run()] == [Step] * 4
    trainer.evaluate_fn = evaluate_fn
    rest = train(trainer)
    assert isinstance(rest[0], Evaluation)
    untouched = make(image_set, validate=True)
    expected = evaluations(train(untouched))
    assert [(e.step, e.train_loss, e.val_loss) for e in evaluations(rest)] == [
        (e.step, e.train_loss, e.val_loss) for e in expected
    ]
    assert_same_weights(trainer, untouched)


# ------------------------------------------------------------------------------------------------ randomness


def masks_of(trainer):
    """The dropout masks of each step, as training draws them."""
    masks = []
    trainer.model[4].register_forward_hook(
        lambda module, _inputs, output: masks.append(output != 0) if module.training else None
    )
    train(trainer)
    return masks


def test_dropout_depends_on_seed_and_step_alone(image_set):
    def model():
        net = plain_model(dropout=0.5)
        net[4].register_forward_pre_hook(lambda _module, inputs: (torch.ones_like(inputs[0]),))
        return net

    first = masks_of(make(image_set, model(), total_steps=6))
    torch.rand(100)
    again = masks_of(make(image_set, model(), total_steps=6, validate=True, evaluate_every=1, lr=0.5))
    other = masks_of(make(image_set, model(), total_steps=6, seed=1))
    assert len(first) == 6
    for i, mask in enumerate(first):
        assert torch.equal(mask, again[i])
        assert not torch.equal(mask, other[i])
        assert 0.3 < mask.float().mean() < 0.7
        assert i == 0 or mask.shape != first[i - 1].shape or not torch.equal(mask, first[i - 1])


@pytest.mark.parametrize("seed", [0, 2**62])
def test_any_seed_works(image_set, seed):
    assert train(make(image_set, plain_model(dropout=0.5), seed=seed, total_steps=2))


def test_state_between_any_two_events_is_complete(image_set):
    def fresh():
        model = plain_model(dropout=0.3, norm=True)
        augment = Augment(crop_padding=1, flip="random")
        schedule = Cosine(total_steps=9, steps_per_epoch=4)
        average = WeightAverage(model, 0.9)
        return make(image_set, model, augment=augment, schedule=schedule, average=average, validate=True, total_steps=9)

    def figures(events):
        return [(e.step, e.epoch, e.train_loss, e.train_accuracy, e.val_loss, e.lr) for e in evaluations(events)]

    whole = fresh()
    expected = figures(train(whole))
    for num_events in range(13):
        first = fresh()
        found = list(islice(first.run(), num_events))
        state = first.state_dict()
        torch.manual_seed(99)
        second = fresh()
        second.load_state_dict(state)
        found += train(second)
        assert figures(found) == expected
        assert_same_weights(second, whole)
        for ours, theirs in zip(
            second.average.state_dict()["averages"], whole.average.state_dict()["averages"], strict=True
        ):
            assert torch.equal(ours, theirs)


# ------------------------------------------------------------------------------------------------ averaged, frozen


def test_averaged_weights_follow_the_formula_and_are_what_is_evaluated(image_set):
    model = plain_model()
    trainer = make(image_set, model, average=WeightAverage(model, 0.8), validate=True, total_steps=8)
    averages, steps = [p.detach().clone() for p in plain_model().parameters()], []

    def average_by_hand(net):
        decay = min(0.8, (1 + len(steps)) / (10 + len(steps)))
        for average, parameter in zip(averages, net.parameters(), strict=True):
            average.copy_(decay * average + (1 - decay) * parameter.detach())
        steps.append(None)

    evaluation = evaluations(train(trainer))[-1]
    plain = reference_loop(image_set, plain_model(), total_steps=8, after_step=average_by_hand)
    for ours, theirs in zip(trainer.average.state_dict()["averages"], averages, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), "training itself goes on with the plain weights"
    with torch.no_grad():
        for parameter, average in zip(plain.parameters(), averages, strict=True):
            parameter.copy_(average)
    images = NORMALIZE(image_set.images.pixels.permute(0, 3, 1, 2))
    expected = F.cross_entropy(plain(images), image_set.labels).item()
    assert evaluation.val_loss == pytest.approx(expected, rel=1e-5)


def test_frozen_parts_keep_their_bits_statistics_included(image_set):
    model = plain_model(norm=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = make(image_set, model, frozen=freeze(model, ["0.*", "1.*"]), validate=True, evaluate_every=1)
    train(trainer)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith(("0.", "1.")), name


# ------------------------------------------------------------------------------------------------ what goes wrong


class Limited(nn.Module):
    """Has no room for batches of more than some images, found out in the backward pass of the last layer."""

    def __init__(self, room, *, from_call=1):
        super().__init__()
        self.layers = plain_model(dropout=0.5, norm=True)
        self.room, self.from_call, self.calls, self.failed = room, from_call, 0, []

    def forward(self, images):
        assert all(reference() is None for reference in self.failed), "tensors of a failed attempt are still there"
        self.calls += self.training
        hidden = self.layers[:5](images)
        if self.training and self.calls >= self.from_call and len(images) > self.room:
            self.failed.append(weakref.ref(hidden))
            hidden.register_hook(self.run_out)
        return self.layers[5](hidden)

    def run_out(self, _gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def assert_same_training(ours, theirs):
    assert_same_weights(ours, theirs)
    for a, b in zip(ours.optimizer.state.values(), theirs.optimizer.state.values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert {k: v for k, v in ours["sums"].items() if k != "seconds"} == {
        k: v for k, v in theirs["sums"].items() if k != "seconds"
    }


@pytest.mark.parametrize(("room", "num_parts"), [(5, 2), (3, 4)])
def test_steps_without_room_are_made_again_in_parts_as_if_they_had_been_so_from_the_start(image_set, room, num_parts):
    said = []
    limited = make(image_set, Limited(room), warn=said.append, validate=True)
    in_parts = make(image_set, Limited(99), accumulate=num_parts, validate=True)
    found, expected = evaluations(train(limited)), evaluations(train(in_parts))
    assert_same_training(limited, in_parts)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.train_loss, ours.val_loss) == (theirs.train_loss, theirs.val_loss)
    assert len(limited.model.failed) == num_parts // 2, "a step alone has failed"
    assert limited.num_parts == num_parts
    assert len(said) == 1
    assert f"next time type trainer.accumulate={num_parts}" in said[0]


def test_step_that_first_has_no_room_changes_nothing_before_it_and_a_resumed_run_keeps_its_parts(image_set):
    limited = make(image_set, Limited(5, from_call=7), validate=True)
    train(limited)
    first = make(image_set, Limited(99), validate=True)
    list(islice(first.run(), 7))  # six steps and an evaluation
    second = make(image_set, Limited(99), accumulate=2, validate=True)
    second.load_state_dict(first.state_dict())
    half = list(islice(second.run(), 2))
    third = make(image_set, Limited(99), validate=True)
    third.load_state_dict(second.state_dict())
    assert third.num_parts == 2
    train(third)
    assert isinstance(half[0], Step)
    assert_same_training(limited, third)


def test_what_watches_a_step_sees_the_attempt_that_succeeds_alone(image_set):
    watches = []

    def measure_of(trainer):
        def measure(_step):
            watches.append(StepMeasure(trainer.model, lambda outputs: outputs))
            return watches[-1]

        return measure

    figures = []
    for trainer in (
        make(image_set, Limited(5), total_steps=1),
        make(image_set, Limited(99), accumulate=2, total_steps=1),
    ):
        trainer.measure = measure_of(trainer)
        train(trainer)
        figures.append(watches[-1].figures())
    assert len(watches) == 3
    assert figures[0] == figures[1]


def test_loss_scaler_sees_the_attempt_that_succeeds_alone(image_set):
    half = Compute(CPU.device, "fp16", channels_last=False)
    limited = make(image_set, Limited(5), compute=half)
    in_parts = make(image_set, Limited(99), compute=half, accumulate=2)
    train(limited), train(in_parts)
    assert_same_training(limited, in_parts)
    assert limited.state_dict()["scaler"] == in_parts.state_dict()["scaler"]


@pytest.mark.parametrize(("batch_size", "num_parts", "part_size"), [(26, 13, 2), (8, 4, 2)])
def test_step_that_never_has_room_leaves_the_state_before_it(image_set, batch_size, num_parts, part_size):
    trainer = make(image_set, Limited(1), inputs=inputs_of(image_set, batch_size=batch_size))
    before = weights(trainer)
    where = f"in a step of {batch_size} images and also in {num_parts} parts of {part_size} images"
    with pytest.raises(MemoryLimitError, match=f"out of memory {where}$") as caught:
        train(trainer)
    assert "trainer.batch_size" in caught.value.hint
    assert trainer.is_whole
    for ours, theirs in zip(weights(trainer), before, strict=True):
        assert torch.equal(ours, theirs), "statistics too are as they were"


def test_halving_ends_after_four_times(image_set):
    sizes = []

    def work(num_parts):
        sizes.append(num_parts)
        raise MemoryError

    parted = PartedWork(TRAINING, CPU.device, num_parts=3, smallest=2)
    with pytest.raises(MemoryLimitError, match="in 48 parts of 22 images"):
        parted.compute(work, batch_size=1024)
    assert sizes == [3, 6, 12, 24, 48]


def test_optimizer_without_room_is_told_and_nothing_is_saved_of_half_a_step(image_set):
    trainer = make(image_set)

    def run_out(*_arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    trainer.optimizer.register_step_post_hook(run_out)
    with pytest.raises(MemoryLimitError, match="while the optimizer changed the weights") as caught:
        train(trainer)
    assert "optimizer=sgd" in caught.value.hint
    assert not trainer.is_whole


def test_real_lack_of_memory_in_a_step_is_met_in_parts(image_set):
    class Wasteful(nn.Module):
        """Needs more than any machine has for eight images, and little for four."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(108, 5)

        def forward(self, images):
            torch.empty(2 ** (60 if len(images) == 8 else 2))
            return self.layer(images.flatten(1))

    trainer = make(image_set, Wasteful())
    train(trainer)
    assert (trainer.step, trainer.num_parts) == (10, 2)


def test_lack_of_memory_for_a_batch_is_told_too(image_set):
    trainer = make(image_set)
    trainer.inputs.normalize = lambda images: torch.empty(2**60)
    with pytest.raises(MemoryLimitError, match="out of memory while preparing a batch"):
        train(trainer)


def test_other_errors_of_a_model_pass_through(image_set):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(make(image_set, nn.Sequential(nn.Flatten(), nn.Linear(3, 5))))
