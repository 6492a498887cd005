"""What processes that train together do in the tests, and the same for one process to compare with."""

import copy
import itertools
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batches
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.data.inputs import EvalInputs, TrainInputs
from cvtrain.data.shares import Share
from cvtrain.data.statistics import Normalize, Statistics
from cvtrain.engine.averaging import WeightAverage
from cvtrain.engine.device import Compute
from cvtrain.engine.distributed.gradients import GradientSum
from cvtrain.engine.distributed.rank import rank_from_environment
from cvtrain.engine.distributed.shared_training import SharedTraining
from cvtrain.engine.distributed.sync_norm import SharedStatistics
from cvtrain.engine.distributed.team import Wishes, join
from cvtrain.engine.evaluator import evaluate
from cvtrain.engine.events import Evaluation
from cvtrain.engine.trainer import Trainer
from cvtrain.losses import CrossEntropy
from cvtrain.schedulers import Constant

CPU = Compute(torch.device("cpu"), channels_last=False)
NUM_IMAGES, NUM_CLASSES = 26, 5
NORMALIZE = Normalize(Statistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))


# ------------------------------------------------------------------------------------------ batch normalisation


class OwnForward(nn.BatchNorm2d):
    """As libraries have them: a batch normalisation with a `forward` of its own, which does more."""

    def forward(self, images):
        return F.relu(
            F.batch_norm(
                images,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.training,
                self.momentum,
                self.eps,
            )
        )


NORMS = {
    "1d": lambda: nn.BatchNorm1d(3),
    "2d": lambda: nn.BatchNorm2d(3),
    "3d": lambda: nn.BatchNorm3d(3),
    "without weights": lambda: nn.BatchNorm2d(3, affine=False),
    "counts": lambda: nn.BatchNorm2d(3, momentum=None),
    "keeps nothing": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "forward of its own": lambda: OwnForward(3),
}
SHAPES = {"1d": (8, 3), "3d": (8, 3, 2, 3, 2)}


def norm_and_images(name, dtype=torch.float64):
    """A norm with weights, and 8 images far from zero: sums of squares would lose digits there."""
    generator = torch.Generator().manual_seed(0)
    norm = NORMS[name]().to(dtype)
    if norm.affine:
        with torch.no_grad():
            norm.weight.copy_(torch.rand(3, generator=generator) + 0.5)
            norm.bias.copy_(torch.rand(3, generator=generator))
    images = torch.randn(SHAPES.get(name, (8, 3, 4, 5)), generator=generator, dtype=torch.float64) * 2 + 100
    return norm, images.to(dtype)


def normed(norm, images, rows=slice(None), context=nullcontext):
    """Two steps of a norm over images: outputs, gradients, state."""
    found = {}
    for step in range(2):
        ours = (images[rows] * (step + 1)).requires_grad_()
        with context():
            outputs = norm(ours)
        # Of a loss that is no function of the normalised values alone, or the gradient would be zero.
        weights = torch.arange(images.numel(), dtype=images.dtype).view_as(images).sin()[rows]
        (outputs**3 * weights).sum().backward()
        found |= {f"outputs {step}": outputs.detach(), f"gradient {step}": ours.grad}
    gradients = {f"gradient of {n}": p.grad for n, p in norm.named_parameters()}
    return found, gradients, {k: v.clone() for k, v in norm.state_dict().items()}


def shared_norms(team):
    found = {}
    rows = slice(0, 1) if team.is_first else slice(1, 8)  # one image is enough
    for name, dtype in [*itertools.product(NORMS, [torch.float64]), ("2d", torch.bfloat16)]:
        norm, images = norm_and_images(name, dtype if dtype == torch.float64 else torch.float32)
        images = images.to(dtype)
        statistics = SharedStatistics(norm, team)
        found[name, str(dtype)] = normed(norm, images, rows, statistics.on)
    norm, images = norm_and_images("2d")
    SharedStatistics(norm, team)
    found["alone"] = normed(norm, images, slice(2, 4) if team.is_first else slice(4, 8))
    return found


# ------------------------------------------------------------------------------------------ training


class Net(nn.Module):
    """Computes in float64, so that nothing but the order of sums differs between one process and several."""

    def __init__(self, *, dropout=0.0, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.never_used = nn.Linear(2, 2)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(64, NUM_CLASSES)
        self.frozen = nn.Parameter(torch.zeros(NUM_CLASSES), requires_grad=False)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        self.double()

    def forward(self, images):
        features = F.silu(self.norm(self.conv(images.double())))
        return self.head(self.dropout(features.flatten(1))) + self.frozen


def image_set():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, 6, 6, 3), generator=generator, dtype=torch.uint8)
    return ImageSet(MemoryImages(pixels), torch.arange(NUM_IMAGES) % NUM_CLASSES)


def batches_of(indices, *, batch_size=8):
    return Batches(image_set(), indices, batch_size=batch_size, device=CPU.device, seed=3)


COURSES = {
    "plain": {},
    "in parts, clipped, averaged": {"accumulate": 3, "grad_clip": 0.05, "ema": 0.7},
    "mixup": {"augment": Augment(mixup=1.0, crop_padding=1, flip="random")},
    "cutmix in parts": {"augment": Augment(cutmix=1.0), "accumulate": 2},
    "small batches": {"batch_size": 3},
}


def make(team=None, *, model=None, **options):
    """A trainer of a small net on 26 images of noise, in batches of 8, 8, 8 and 2."""
    model = model or Net()
    loss_fn = CrossEntropy(num_classes=NUM_CLASSES, class_counts=(1,) * NUM_CLASSES)
    rank, accumulate = team and team.rank, options.pop("accumulate", 1)
    share = Share(rank.number, rank.size, accumulate) if rank else None
    everything = torch.arange(NUM_IMAGES)
    inputs = TrainInputs(
        batches_of(everything, batch_size=options.pop("batch_size", 8)),
        options.pop("augment", Augment()),
        NORMALIZE,
        seed=4,
        share=share,
    )
    eval_indices = everything.tensor_split(rank.size)[rank.number] if rank else everything
    val_inputs = EvalInputs(batches_of(eval_indices), NORMALIZE)
    evaluate_fn = partial(evaluate, model, loss_fn, val_inputs, compute=CPU, team=team)
    shared = SharedTraining(model, team) if team else None
    ema, lr, total_steps = options.pop("ema", None), options.pop("lr", 0.1), options.pop("total_steps", 10)
    trainer = Trainer(
        model,
        loss_fn,
        optimizer=torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad], lr, momentum=0.9, weight_decay=0.1
        ),
        schedule=Constant(total_steps=total_steps, steps_per_epoch=len(inputs)),
        inputs=inputs,
        evaluate_fn=evaluate_fn,
        compute=options.pop("compute", CPU),
        total_steps=total_steps,
        seed=0,
        evaluate_every=4,
        accumulate=accumulate,
        average=WeightAverage(model, ema) if ema else None,
        shared=shared,
        **options,
    )
    return trainer


def course(team=None, **options):
    """Trains; what there is to compare."""
    trainer = make(team, **options)
    events = list(trainer.run())
    rows = [
        (e.step, e.train_loss, e.train_accuracy, e.val_loss, e.val_accuracy) for e in events if type(e) is Evaluation
    ]
    state = trainer.state_dict()
    average = state["average"]["averages"] if state["average"] else []
    return {"rows": rows, "model": state["model"], "averages": average, "sums": state["sums"]["num_images"]}


def dropped(team):
    """What dropout leaves of ones in two processes: in one step, in the next, and again in the first."""
    found = []
    for step in (0, 1, 0):
        trainer = make(team, model=Net(dropout=0.5))
        trainer._step_maker.seed_step(step)
        found.append(F.dropout(torch.ones(64), 0.5))
    return found


def overflow(team):
    """A step in fp16 whose gradients overflow in the last process alone, and one in which nothing does."""
    model = Net(norm=False)
    model.float()
    model.forward = lambda images: model.head(F.silu(model.conv(images)).flatten(1))
    trainer = make(team, model=model, compute=Compute(torch.device("cpu"), "fp16", channels_last=False))
    found = []
    steps = trainer.run()
    for is_bad in (True, False):
        handle = None
        if is_bad and team.rank.number == team.size - 1:
            handle = model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
        before = model.head.weight.detach().clone()
        next(steps)
        if handle:
            handle.remove()
        found.append((trainer._step_maker.scaler.get_scale(), not torch.equal(before, model.head.weight)))
    return found


def not_finite(team):
    """A loss that is not finite in the last process alone."""
    trainer = make(team)
    loss_fn = trainer.loss_fn.forward
    if not team.is_first:
        trainer.loss_fn.forward = lambda logits, labels: (
            loss_fn(logits, labels) * (float("nan") if trainer.step == 2 else 1)
        )
    try:
        list(trainer.run())
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def sometimes_used(team):
    """A parameter that has a gradient in the last process alone, in buckets of a few numbers."""
    used, unused = nn.Linear(3, 2), nn.Linear(3, 2)
    with torch.no_grad():
        used.weight.fill_(1.0)
    summed = GradientSum([*used.parameters(), *unused.parameters()], team, bucket_bytes=8)
    found = []
    for only_one in (True, False, True):
        for module in (used, unused):
            module.zero_grad(set_to_none=True)
        summed.expect(torch.tensor(team.rank.number * 0.5))
        (
            used(torch.ones(1, 3)).sum() + (unused(torch.ones(1, 3)).sum() if only_one and not team.is_first else 0)
        ).backward()
        extra = summed.finish()
        found.append([extra.item(), *(None if p.grad is None else p.grad.clone() for p in unused.parameters())])
        found[-1].append(used.weight.grad.clone())
    return found


def evaluated(team):
    """Figures and predictions of all 26 images, and of one image: then all but one process have none."""
    model, loss_fn = Net(), CrossEntropy(num_classes=NUM_CLASSES, class_counts=(1,) * NUM_CLASSES)
    found = []
    for indices in (torch.arange(NUM_IMAGES).flip(0), torch.tensor([7])):
        share = indices.tensor_split(team.size)[team.rank.number] if team else indices
        inputs = EvalInputs(batches_of(share, batch_size=4), NORMALIZE)
        found.append(evaluate(model, loss_fn, inputs, compute=CPU, collect=True, team=team).__dict__)
    return found


def stopped(team):
    """An evaluation that a signal to the last process stops."""
    model, loss_fn = Net(), CrossEntropy(num_classes=NUM_CLASSES, class_counts=(1,) * NUM_CLASSES)
    inputs = EvalInputs(batches_of(torch.arange(NUM_IMAGES)), NORMALIZE)
    return evaluate(model, loss_fn, inputs, compute=CPU, should_stop=lambda: not team.is_first, team=team) is None


def wishes(team):
    """What is heard of wishes that one process has, in a step and between steps."""
    team.ask = lambda: Wishes() if team.is_first else Wishes(15, True, False)
    between = team.decide()
    team.ask = lambda: Wishes(0, False, team.is_first)
    trainer = make(team)
    next(trainer.run())
    return tuple(between), tuple(team.heard)


def handed_out(team):
    state = {"a": torch.arange(3), "b": [1, "two", None]} if team.is_first else None
    return team.hand_out(state), team.gather_rows(torch.full((team.rank.number, 2), team.rank.number))


def differs(team):
    try:
        team.check_same({"same": "x", "split": str(team.rank.number)})
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def saved_half_way(team):
    """A state after 6 of 10 steps, in the middle of an epoch; and the end of a training that goes on from it."""
    trainer = make(team, ema=0.7)
    events = trainer.run()
    while trainer.step < 6:
        next(events)
    state = copy.deepcopy(trainer.state_dict())
    later = make(team, ema=0.7)
    later.load_state_dict(copy.deepcopy(state))
    rows = [(e.train_loss, e.val_loss) for e in later.run() if type(e) is Evaluation]
    return {"state": state, "rows": rows, "model": later.state_dict()["model"]}


def everything():
    """All of it in one team; by name."""
    torch.set_num_threads(1)
    team = join(rank_from_environment(), torch.device("cpu"))
    found = {
        "courses": {name: course(team, **options) for name, options in COURSES.items()},
        "evaluated": evaluated(team),
        "not_finite": not_finite(team),
        "half": saved_half_way(team),
    }
    if team.size == 2:
        tests = (shared_norms, dropped, overflow, sometimes_used, stopped, wishes, handed_out, differs)
        found |= {test.__name__: test(team) for test in tests}
    team.leave()
    return found
