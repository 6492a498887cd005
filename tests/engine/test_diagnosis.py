"""Looking at a run changes nothing in it, is exact under resume, and says each thing once."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batches
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.data.inputs import EvalInputs, TrainInputs
from cvtrain.data.statistics import Normalize, Statistics
from cvtrain.engine.device import Compute
from cvtrain.engine.diagnosis import rules
from cvtrain.engine.diagnosis.causes import Evidence, name_cause, vanishing
from cvtrain.engine.diagnosis.facts import RunFacts
from cvtrain.engine.diagnosis.history import Block, History, Totals
from cvtrain.engine.diagnosis.measures import ProbeFigures, StepMeasure, probe
from cvtrain.engine.diagnosis.observer import Observer, Parts
from cvtrain.engine.evaluator import evaluate
from cvtrain.engine.events import Evaluation
from cvtrain.engine.trainer import Trainer
from cvtrain.losses import CrossEntropy, MeanSquaredError
from cvtrain.schedulers import Constant

CPU = Compute(torch.device("cpu"), channels_last=False)
NUM_IMAGES, NUM_CLASSES, STEPS = 64, 4, 320


class Net(nn.Module):
    """With everything that looking could disturb: batch normalisation, dropout, a ReLU as a function."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3))
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(6, NUM_CLASSES)

    def forward(self, images):
        features = torch.relu(self.features(images)).mean((2, 3))
        return self.head(self.drop(features))


def make(*, lr=0.05, watched=True, seed=0):
    """A trainer on noise, where nothing can be learnt, and its observer."""
    torch.manual_seed(seed)
    model = Net()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, 6, 6, 1), generator=generator, dtype=torch.uint8)
    labels = torch.arange(NUM_IMAGES) % NUM_CLASSES
    batches = Batches(
        ImageSet(MemoryImages(pixels), labels), torch.arange(NUM_IMAGES), batch_size=32, device=CPU.device, seed=3
    )
    normalize = Normalize(Statistics((0.5,), (0.25,)))
    inputs = TrainInputs(batches, Augment(), normalize, seed=4)
    loss_fn = CrossEntropy(num_classes=NUM_CLASSES, class_counts=(16,) * NUM_CLASSES)
    schedule = Constant(total_steps=STEPS, steps_per_epoch=len(inputs))
    trainer = Trainer(
        model,
        loss_fn,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        schedule=schedule,
        inputs=inputs,
        evaluate_fn=partial(evaluate, model, loss_fn, EvalInputs(batches, normalize), compute=CPU),
        compute=CPU,
        total_steps=STEPS,
        seed=0,
        evaluate_every=40,
    )
    facts = RunFacts((16,) * NUM_CLASSES, NUM_IMAGES, STEPS, len(inputs), 40, schedule.factor, lr)
    parts = Parts(model, loss_fn, CPU.autocast, lambda count: next(inputs.epoch(0)).images[:count])
    observer = Observer(facts, parts)
    if watched:
        trainer.measure = observer.measure
    return trainer, observer


def follow(trainer, observer, *, stop_at=None):
    """Trains, and looks; gives all findings and rows."""
    findings, rows = [], []
    for event in trainer.run():
        if isinstance(event, Evaluation):
            rows.append((event.step, event.train_loss, event.train_accuracy, event.val_loss, event.val_accuracy))
            findings += observer.after_evaluation(event)
        else:
            findings += observer.after_step(event.step, trainer.totals)
        if stop_at and trainer.step >= stop_at:
            break
    return findings, rows


def test_looking_changes_no_bit_of_training():
    watched, observer = make(lr=1e-7)
    findings, rows = follow(watched, observer)
    assert findings, "it must have looked, and probed"
    alone, _ = make(lr=1e-7, watched=False)
    silent = []
    for event in alone.run():
        if isinstance(event, Evaluation):
            silent.append((event.step, event.train_loss, event.train_accuracy, event.val_loss, event.val_accuracy))
    assert rows == silent
    for (name, left), right in zip(watched.model.state_dict().items(), alone.model.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


@pytest.mark.parametrize("stop_at", [1, 37, 150, 299, 300])
def test_resumed_observer_stands_where_the_other_one_does_and_repeats_nothing(stop_at):
    whole, observer = make(lr=1e-7)
    said, _ = follow(whole, observer)
    first, before = make(lr=1e-7)
    early, _ = follow(first, before, stop_at=stop_at)
    later, after = make(lr=1e-7)
    later.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    late, _ = follow(later, after)
    assert [f.words for f in early + late] == [f.words for f in said]
    assert after.state_dict() == observer.state_dict()


def test_run_with_too_small_steps_is_told_the_lr_to_type():
    findings, _ = follow(*make(lr=1e-7))
    finding = findings[0]
    assert "optimizer.lr=1e-06" in finding.words
    assert "\n" not in finding.words


def test_probe_leaves_modes_buffers_and_generators_alone():
    model = Net()
    model.features[1].training = False  # frozen
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, generator = torch.randn(8, 1, 6, 6), torch.get_rng_state()
    figures = probe(model, images, autocast=CPU.autocast(), class_logits=lambda rows: rows)
    assert figures.num_relus == 2, "one module, one function"
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_probe_counts_units_that_are_zero_for_every_image():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(model[0].weight)
    model[0].bias.data = torch.tensor([-1.0, -1.0, -1.0, 1.0])
    figures = probe(model, torch.randn(8, 1, 2, 2), autocast=CPU.autocast(), class_logits=lambda rows: rows)
    assert (figures.dead, figures.dead_index, figures.num_relus) == (0.75, 1, 1)
    assert figures.top_share == 1.0


def test_measure_takes_gradients_and_the_change_of_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    measure = StepMeasure(model, lambda rows: rows)
    images = torch.randn(8, 1, 2, 2)
    outputs = model(images)
    measure.outputs(images, outputs)
    outputs.square().mean().backward()
    measure.gradients()
    before = torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1])
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.ndim > 1])
    optimizer.step()
    measure.update()
    figures = measure.figures()
    assert figures.first_gradient == pytest.approx(model[1].weight.grad.norm().item())
    assert figures.last_gradient == pytest.approx(model[3].weight.grad.norm().item())
    assert figures.update == pytest.approx((0.1 * gradients.norm() / before.norm()).item(), rel=1e-4)
    assert figures.spread == pytest.approx(outputs.std(0).mean().item())
    assert figures.trained_share == 1.0


FACTS = RunFacts((200,) * 10, 200, 1000, 50, 50, lambda step: 1.0, 0.1)


def evaluation(step, train, val, *, val_loss=1.0, train_loss=0.5):
    return Evaluation(step // 50, step, train_loss, train, val_loss, val, 0.1, 1.0, 1.0)


def history_of(*evaluations):
    history = History()
    for one in evaluations:
        history.evaluated(one, rules.is_at_chance(one.val_accuracy, FACTS))
    return history


@pytest.mark.parametrize(
    ("accuracy", "loss", "stuck"), [(0.10, 2.302, True), (0.12, 2.302, True), (0.16, 2.302, False), (0.10, 2.2, False)]
)
def test_chance_needs_accuracy_and_loss(accuracy, loss, stuck):
    recent = Block(0, 100, loss * 3200, round(accuracy * 3200), 3200)
    assert rules.no_better_than_chance(recent, 2.3026, FACTS) is stuck


def test_validation_at_chance_is_told_only_where_it_never_was_better():
    wrong = [evaluation(step, 0.9, 0.08) for step in (50, 100, 150)]
    tell = partial(rules.validation_at_chance, facts=FACTS, chance_loss=2.3026, is_late=False)
    found = tell(history_of(*wrong), wrong[-1])
    assert "8.0 % of 200 images" in found.words
    assert tell(history_of(evaluation(25, 0.5, 0.4), *wrong), wrong[-1]) is None
    assert tell(history_of(*wrong[:1]), wrong[0]) is None
    unsure = RunFacts((200,) * 10, 10, 1000, 50, 50, lambda step: 1.0, 0.1)
    assert (
        rules.validation_at_chance(
            history_of(*wrong), evaluation(150, 0.45, 0.1), unsure, chance_loss=2.3, is_late=False
        )
        is None
    )


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ((0.3, 0.4, 0.5, 0.6), True),
        ((0.3, 0.31, 0.32, 0.33), False),
        ((0.3, 0.6, 0.5, 0.7), False),
        ((0.4, 0.5, 0.6), False),
    ],
)
def test_memorising_is_told_of_a_loss_that_rises_clearly_and_steadily(losses, told):
    rows = [evaluation(50 * (i + 1), 0.999, 0.9, val_loss=loss) for i, loss in enumerate(losses)]
    assert (rules.memorising(history_of(*rows), rows[-1], 2.3026) is not None) is told
    doubtful = evaluation(200, 0.98, 0.9, val_loss=losses[-1])
    assert rules.memorising(history_of(*rows), doubtful, 2.3026) is None


@pytest.mark.parametrize(
    ("losses", "told"), [((4, 5, 6, 7), True), ((7, 6, 5, 4), False), ((2, 5, 6, 7), False), ((4, 4, 4, 4), False)]
)
def test_divergence_is_told_of_a_loss_that_rises_far_above_chance(losses, told):
    history = History()
    total = Totals(0.0, 0, 0)
    for i, loss in enumerate(losses):
        total = Totals(total.loss + loss * 100, 0, total.num_images + 100)
        history.read(50 * (i + 1), total)
    found = rules.rising_loss(history, 2.3026, FACTS)
    assert (found is not None) is told
    if found:
        assert "optimizer.lr=0.01" in found.words
        assert found.stops


def test_outputs_that_are_probabilities_are_told_only_of_a_loss_that_makes_its_own():
    figures = _figures(nn.Sequential(nn.Flatten(), nn.Linear(4, 10), nn.Softmax(1)))
    entropy = CrossEntropy(num_classes=10, class_counts=(1,) * 10)
    squares = MeanSquaredError(num_classes=10, class_counts=(1,) * 10)
    assert "ends in a softmax" in rules.activated_outputs(figures, entropy, FACTS).words
    assert rules.activated_outputs(figures, squares, FACTS) is None
    plain = _figures(nn.Sequential(nn.Flatten(), nn.Linear(4, 10)))
    assert rules.activated_outputs(plain, entropy, FACTS) is None


def _figures(model):
    measure = StepMeasure(model, lambda rows: rows)
    images = torch.randn(16, 1, 2, 2)
    outputs = model(images)
    measure.outputs(images, outputs)
    outputs.square().sum().backward()
    measure.gradients()
    measure.update()
    return measure.figures()


def slow_history(losses):
    """Blocks of 100 steps of 2,500 images each."""
    history, total = History(), Totals(0.0, 0, 0)
    for i, loss in enumerate(losses):
        total = Totals(total.loss + loss * 2500, 0, total.num_images + 2500)
        history.read(100 * (i + 1), total)
    return history


@pytest.mark.parametrize(
    ("losses", "update", "told"),
    [
        ((2.3, 2.28, 2.26), 5e-5, True),  # falls steadily and slowly
        ((2.31, 2.31, 2.31), 1e-8, True),  # has not moved at all
        ((2.3, 2.28, 2.26), 1e-3, False),  # steps are as long as they should be
        ((2.3, 2.1, 1.9), 5e-5, False),  # falls fast
        ((2.3, 1.5, 1.5), 1e-6, False),  # at rest, having learnt what it can
        ((1.2, 1.1, 1.09), 5e-5, False),  # well below chance
    ],
)
def test_slowness_is_told_of_short_steps_that_get_nowhere(losses, update, told):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    figures = replace(_figures(model), update=update)
    history = slow_history(losses)
    found = rules.too_slow(history, history.recent(), figures, chance=2.3026, facts=FACTS, step=300)
    assert (found is not None) is told
    if found:
        assert "remedy: optimizer.lr=1" in found.words


def evidence(**changes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    figures = replace(_figures(model), input_size=1.0, input_spread=1.0, update=1e-3)
    answers = ProbeFigures(512, 0.1, 1, 3, 7, 0.3)
    return replace(Evidence(FACTS, figures, replace(figures), answers, 2.3026, 2.3026), **changes)


def test_causes_are_named_in_order_and_weak_ones_wait_for_the_learning_rate():
    assert name_cause(evidence(), step=300).rule == "R1"
    constant = evidence(probe=ProbeFigures(512, 0.1, 1, 3, 7, 0.99))
    assert (name_cause(constant, step=300).rule, name_cause(constant, step=300).is_firm) == ("R4", False)
    weak = replace(constant.first, first_gradient=5e-3, last_gradient=1.0)
    assert "trainer.init=he" in name_cause(replace(constant, first=weak), step=300).remedy
    assert "optimizer.lr=0.01" in name_cause(constant, step=300).remedy
    dead = evidence(probe=ProbeFigures(512, 0.95, 2, 3, 7, 0.99))
    assert name_cause(dead, step=300).rule == "R3"
    assert "optimizer.lr=0.01" in name_cause(dead, step=300).remedy
    assert "trainer.init=he" in name_cause(replace(dead, began_badly=True), step=300).remedy
    assert name_cause(evidence(loss=9.0), step=300).rule == "R6"
    assert name_cause(replace(dead, dropout=0.95), step=300).rule == "dropout"
    recent = Block(200, 300, 2.3 * 3200, 320, 3200)
    rising = replace(FACTS, lr_factor=lambda step: step / 1000)
    assert rules.not_learning(recent, replace(constant, facts=rising), step=300, is_last=False) is None
    late = rules.not_learning(recent, replace(constant, facts=rising), step=600, is_last=False)
    assert late is not None
    assert not late.stops, "a symptom of slow starts too"
    firm = rules.not_learning(recent, replace(dead, facts=rising), step=300, is_last=False)
    assert firm.stops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_types_are_too_coarse_to_call_a_spread_small(dtype):
    measure = StepMeasure(nn.Linear(1, 1), lambda rows: rows)
    rows = (1 + 1e-6 * torch.randn(8, 10)).to(dtype)
    measure.outputs(torch.randn(8, 1, 2, 2), rows)
    measure.gradients()
    measure.update()
    figures = measure.figures()
    at_first = evidence(now=figures, first=figures)
    at_first = replace(at_first, first=at_first.now)
    assert (vanishing(at_first) is not None) is (dtype == torch.float32)
