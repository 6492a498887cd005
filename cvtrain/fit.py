"""One training run from its first step, or from its last checkpoint, to the test of its best weights.

Knows how parts, checkpoints, metrics and early stopping come together; neither Hydra nor how anything is printed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from cvtrain import build
from cvtrain.config import Config, masked
from cvtrain.console import Console
from cvtrain.data.facts import DataFacts
from cvtrain.engine.averaging import WeightAverage
from cvtrain.engine.checkpoint import CheckpointFile, Loaded, load_newest, mark_best, prune, save_checkpoint
from cvtrain.engine.evaluator import EvaluationResult, evaluate
from cvtrain.engine.freezing import freeze
from cvtrain.engine.selection import Selection
from cvtrain.engine.trainer import Evaluation, Step, Trainer
from cvtrain.errors import CheckpointError, ConfigError, InterruptedBySignal, OutputError
from cvtrain.outputs import RunDir
from cvtrain.signals import StopRequest


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Args:
        selection: Knows the best evaluation.
        last: The last evaluation of this process, or None when training was over already.
        test: The best weights on the test images.
        stop_reason: `finished` or `early_stopping`.
        num_steps: Steps taken.
        epochs: Passes over the training images.
        seconds: Of all processes that worked on this run.
        images_per_second: While training, in this process.
    """

    selection: Selection
    last: Evaluation | None
    test: EvaluationResult
    stop_reason: str
    num_steps: int
    epochs: float
    seconds: float
    images_per_second: float


class Run:
    """A run that can be trained, saved, resumed and tested.

    Args:
        config: Checked settings.
        prepared: The data.
        run_dir: Where everything is written.
        console: Where everything is said.
        stop: Set by a signal.
        checkpoint: What to go on from, or None.

    Raises:
        ConfigError: Settings that do not fit the data or each other.
        CheckpointError: A checkpoint of other data or of another model.
    """

    def __init__(
        self,
        config: Config,
        prepared: build.PreparedData,
        *,
        run_dir: RunDir,
        console: Console,
        stop: StopRequest,
        checkpoint: Loaded | None = None,
    ) -> None:
        self.config, self.prepared, self.facts = config, prepared, prepared.facts
        self.run_dir, self.console, self.stop = run_dir, console, stop
        if checkpoint:
            check_same_data(checkpoint.state["facts"], self.facts)
        self._started = time.monotonic()
        self._seconds_before = checkpoint.state["seconds"] if checkpoint else 0.0
        self._assemble(checkpoint.state["precision"] if checkpoint else None)
        self._unsaved_best: tuple[dict[str, Any], int] | None = None
        self._saved_at = time.monotonic()
        self._save_failed = False
        self.last: Evaluation | None = None
        if checkpoint:
            self._restore(checkpoint)

    # ---------------------------------------------------------------------------------------- parts

    def _assemble(self, precision: str | None) -> None:
        config, settings = self.config, self.config["trainer"]
        self.loss_fn = build.loss(config, self.facts)
        self.model, self.init = build.initialised_model(config, self.facts, num_outputs=self.loss_fn.num_outputs)
        self.compute = build.compute(config, self.model, precision=precision)
        self.compute.place(self.model)
        self.loss_fn.to(self.compute.device)
        frozen = freeze(self.model, settings["freeze"]) if settings["freeze"] else []
        optimizer = build.optimizer(config, self.model, device=self.compute.device)
        inputs = build.train_inputs(config, self.prepared, device=self.compute.device)
        total_steps = build.total_steps(config, steps_per_epoch=len(inputs))
        self.val_inputs = self._eval_inputs("val") if len(self.prepared.split.val) else None
        self.trainer = Trainer(
            self.model,
            self.loss_fn,
            optimizer=optimizer,
            schedule=build.schedule(config, total_steps=total_steps, steps_per_epoch=len(inputs)),
            inputs=inputs,
            evaluate_fn=self._validate if self.val_inputs else None,
            compute=self.compute,
            total_steps=total_steps,
            seed=config["seed"],
            evaluate_every=build.evaluate_every(config, steps_per_epoch=len(inputs)),
            accumulate=settings["accumulate"],
            grad_clip=settings["grad_clip"],
            average=WeightAverage(self.model, settings["ema"]) if settings["ema"] is not None else None,
            frozen=frozen,
            forward=torch.compile(self.model) if settings["compile"] else None,
        )
        stopping = settings["early_stopping"]
        if stopping["patience"] is not None and self.val_inputs is None:
            raise ConfigError("trainer.early_stopping.patience needs validation images, and there are none")
        self.selection = Selection(**{k: v for k, v in stopping.items() if k != "restore_best"})

    def _eval_inputs(self, split: str) -> Any:
        device = self.compute.device
        return build.eval_inputs(self.config, self.prepared, split, facts=self.facts, device=device)

    def _validate(self) -> EvaluationResult | None:
        return evaluate(
            self.model,
            self.loss_fn,
            self.val_inputs,
            compute=self.compute,
            should_stop=lambda: bool(self.stop),
        )

    def _restore(self, checkpoint: Loaded) -> None:
        state = checkpoint.state
        try:
            self.trainer.load_state_dict(state["trainer"])
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{checkpoint.path} does not fit the model: {first_line(error)}") from None
        self.selection.load_state_dict(state["selection"])
        self.run_dir.cut_metrics(state["metrics_num_bytes"])
        if self.selection.out_of_patience and state["total_steps"] < self.trainer.total_steps:
            self.selection.forgive()

    # ---------------------------------------------------------------------------------------- training

    def train(self) -> str:
        """Trains to the end.

        Returns:
            `finished` or `early_stopping`.

        Raises:
            InterruptedBySignal: A signal came; the state is saved.
            DivergedError: A number is not finite; no checkpoint holds it.
            MemoryLimitError: No room for a step.
            OutputError: metrics.csv cannot be written, or the last checkpoint.
        """
        trainer = self.trainer
        if self.selection.out_of_patience:
            return "early_stopping"
        self.console.training_starts(
            step=trainer.step, total_steps=trainer.total_steps, steps_per_epoch=trainer.steps_per_epoch
        )
        self.stop.listening = True
        try:
            for event in self._listen(trainer.run()):
                if isinstance(event, Evaluation) and self._take_in(event):
                    return "early_stopping"
            return "finished"
        finally:
            self.stop.listening = False
            self.console.end_bar()

    def _listen(self, events: Iterator[Step | Evaluation]) -> Iterator[Step | Evaluation]:
        """Passes events on, and between them saves when it is time or a signal asks for it."""
        every_seconds = 60 * self.config["trainer"]["checkpoint"]["every_minutes"]
        for event in events:
            yield event
            if isinstance(event, Step):
                self.console.step(event.step)
                if not self.stop and time.monotonic() - self._saved_at > every_seconds:
                    self.save()
            if self.stop:
                break
        if self.stop:
            self._interrupt()

    def _interrupt(self) -> None:
        self.save(must=True)
        assert self.stop.signum is not None, "a stop has a signal"
        step = self.trainer.step
        raise InterruptedBySignal(
            f"stopped by signal {self.stop.signum} at step {step} of {self.trainer.total_steps}; the state is saved",
            signum=self.stop.signum,
            hint=f"continue with: cvtrain resume={self.run_dir.path}",
        )

    def _take_in(self, evaluation: Evaluation) -> bool:
        """Writes, shows and saves an evaluation; returns whether patience is at its end."""
        self.run_dir.append_metrics(evaluation)
        is_best = self.selection.observe(evaluation)
        self.last = evaluation
        self.console.evaluation(evaluation, is_best=is_best)
        is_over = self.trainer.step >= self.trainer.total_steps or self.selection.out_of_patience
        self.save(is_best=is_best, must=is_over)
        return self.selection.out_of_patience

    # ---------------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The whole state of the run, and what is needed to understand it without its folder."""
        best = self.selection.best
        return {
            "config": masked(self.config),
            "facts": self.facts.to_plain(),
            "precision": self.compute.precision,
            "total_steps": self.trainer.total_steps,
            "seconds": self.seconds,
            "metrics_num_bytes": self.run_dir.metrics_num_bytes(),
            "selection": self.selection.state_dict(),
            "is_best": best is not None and best.step == self.trainer.step,
            "trainer": self.trainer.state_dict(),
        }

    @property
    def seconds(self) -> float:
        """Seconds that processes have worked on this run."""
        return self._seconds_before + time.monotonic() - self._started

    def save(self, *, is_best: bool = False, must: bool = False) -> None:
        """Writes a checkpoint; when that fails training goes on with a warning, and the next save tries again.

        Args:
            is_best: The weights are the best so far: keep them under a second name.
            must: The run depends on this checkpoint: an error is an error.

        Raises:
            OutputError: It could not be written, and `must`.
            DivergedError: A weight is not finite.
        """
        self.trainer.check_finite_losses()
        self.trainer.check_finite_weights()
        state, step = self.state_dict(), self.trainer.step
        try:
            if self._unsaved_best and not is_best:
                mark_best(self._write(*self._unsaved_best))
            file = self._write(state, step)
            if is_best:
                mark_best(file)
            self._unsaved_best = None
            prune(self.run_dir.checkpoint_dir, keep=self.config["trainer"]["checkpoint"]["keep"])
        except OutputError as error:
            if must:
                raise
            if is_best:  # later steps change the weights in place: what could not be written is kept in memory
                self._unsaved_best = _copied(state), step
            if not self._save_failed:
                self.console.warn(f"{error.message}; training goes on, and the next save tries again")
            self._save_failed = True
        else:
            self._save_failed = False
        self._saved_at = time.monotonic()

    def _write(self, state: dict[str, Any], step: int) -> CheckpointFile:
        folder = self.run_dir.checkpoint_dir
        return save_checkpoint(folder, state, step=step, sync_first=self.run_dir.sync_metrics)

    # ---------------------------------------------------------------------------------------- test

    def test(self, stop_reason: str) -> FitResult:
        """Looks at the test images once, with the best weights.

        Raises:
            CheckpointError: The best checkpoint is damaged.
        """
        if self.config["trainer"]["early_stopping"]["restore_best"] and self.val_inputs is not None:
            self._load_best()
        elif self.trainer.average is not None:
            self.trainer.average.applied().__enter__()
        inputs = self._eval_inputs("test")
        done = iter(range(1, len(inputs) + 1))
        result = evaluate(
            self.model,
            self.loss_fn,
            inputs,
            compute=self.compute,
            collect=True,
            on_batch=lambda: self.console.progress(next(done), len(inputs), "testing"),
        )
        assert result is not None, "a test is not asked to stop"
        return FitResult(
            selection=self.selection,
            last=self.last,
            test=result,
            stop_reason=stop_reason,
            num_steps=self.trainer.step,
            epochs=round(self.trainer.step / self.trainer.steps_per_epoch, 4),
            seconds=self.seconds,
            images_per_second=self.last.images_per_second if self.last else 0.0,
        )

    def _load_best(self) -> None:
        best = load_newest(self.run_dir.checkpoint_dir, "best")
        if best is None:
            raise CheckpointError(f"there is no best checkpoint in {self.run_dir.checkpoint_dir}")
        for note in best.notes:
            self.console.warn(note)
        load_weights(self.model, best.state)


def load_weights(model: nn.Module, state: dict[str, Any]) -> None:
    """Puts the weights of a checkpoint that are meant to be used, averaged ones if it has them, into a model.

    Raises:
        CheckpointError: They belong to another model.
    """
    trainer = state["trainer"]
    try:
        model.load_state_dict(trainer["model"])
        if trainer["average"] is not None:
            with torch.no_grad():
                for parameter, average in zip(model.parameters(), trainer["average"]["averages"], strict=True):
                    parameter.copy_(average)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint belongs to another model: {first_line(error)}") from None


def check_same_data(saved: dict[str, Any], facts: DataFacts) -> None:
    """Refuses to go on with other images than before.

    Raises:
        CheckpointError: The data or the split has changed.
    """
    before = DataFacts.from_plain(saved)
    if before.class_names != facts.class_names:
        raise CheckpointError(
            f"the data have other classes than the checkpoint: {', '.join(facts.class_names)[:80]}"
            f" instead of {', '.join(before.class_names)[:80]}"
        )
    if (before.fingerprint, before.split_hash) != (facts.fingerprint, facts.split_hash):
        counts = f"{sum(facts.class_counts)} training images instead of {sum(before.class_counts)}"
        raise CheckpointError(
            f"the data have changed since this run was started ({counts} or other content)",
            hint="start a new run, or put the data back",
        )


def first_line(error: BaseException) -> str:
    """The first two lines of a foreign error, as one."""
    return " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__


def _copied(state: Any) -> Any:
    if isinstance(state, dict):
        return {k: _copied(v) for k, v in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_copied(v) for v in state)
    return state.clone() if isinstance(state, torch.Tensor) else state


def card_figures(result: FitResult) -> dict[str, Any]:
    """What a finished run adds to its run card."""
    best = asdict(result.selection.best) if result.selection.best else None
    card: dict[str, Any] = {
        "steps": result.num_steps,
        "epochs": result.epochs,
        "best": best,
        "stop_reason": result.stop_reason,
        "seconds": round(result.seconds, 3),
    }
    if result.last is not None:
        card["last"] = asdict(result.last)
        card["images_per_second"] = round(result.images_per_second, 1)
    return card
