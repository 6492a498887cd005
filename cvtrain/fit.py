"""One training run from its first step, or from its last checkpoint, to the test of its best weights.

Knows how parts, checkpoints, metrics and early stopping come together; neither Hydra nor how anything is printed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from cvtrain import build
from cvtrain.config import Config, masked
from cvtrain.console import Console
from cvtrain.data.facts import DataFacts
from cvtrain.engine.averaging import WeightAverage
from cvtrain.engine.checkpoint import Loaded, list_checkpoints, mark_best
from cvtrain.engine.evaluator import EvaluationResult, evaluate
from cvtrain.engine.events import Evaluation, Step
from cvtrain.engine.freezing import freeze
from cvtrain.engine.selection import Selection
from cvtrain.engine.trainer import Trainer
from cvtrain.errors import ConfigError, InterruptedBySignal
from cvtrain.init_from import Start, Taken, read_start, take_weights, with_normalisation
from cvtrain.outputs import RunDir
from cvtrain.results import FitResult
from cvtrain.resume import check_length, check_same_data, check_same_settings, explained, load_best, load_weights
from cvtrain.safekeeping import Safekeeping
from cvtrain.signals import StopRequest, described
from cvtrain.step_log import StepLog
from cvtrain.watch import watch_over


class Run:
    """A run that can be trained, saved, resumed and tested.

    Args:
        config: Checked settings.
        prepared: The data.
        run_dir: Where everything is written.
        console: Where everything is said.
        stop: Set by a signal.
        checkpoint: What to go on from, or None.
        start: What `model.init_from` names, if it has been read.

    Raises:
        ConfigError: Settings that do not fit the data, each other or the checkpoint.
        CheckpointError: A checkpoint of other data or of another model.
        OutputError: The folder cannot be written.
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
        start: Start | None = None,
    ) -> None:
        self.config, self.prepared, self.facts = config, prepared, prepared.facts
        self.run_dir, self.console, self.stop = run_dir, console, stop
        self._started, self._seconds_before = time.monotonic(), 0.0
        self._checkpoints = Safekeeping(run_dir, keep=config["trainer"]["checkpoint"]["keep"], warn=console.warn)
        self._saved_position = (0, 0)
        self.last: Evaluation | None = None
        self.taken: Taken | None = None
        self.origin: dict[str, Any] | None = None  # of the first weights
        if checkpoint:
            with explained(checkpoint.path):
                check_same_settings(checkpoint.state["config"], config)
                check_same_data(checkpoint.state["facts"], self.facts)
                self._normalise_by(DataFacts.from_plain(checkpoint.state["facts"]))
                precision = checkpoint.state["precision"]
            self._assemble(precision)
            with explained(checkpoint.path):
                self._restore(checkpoint.state)
            self._go_on_from(checkpoint)
        else:
            self._assemble(None, start or read_start(config))
            run_dir.cut_metrics(0)  # rows of a process that was killed before its first checkpoint

    # ---------------------------------------------------------------------------------------- parts

    def _normalise_by(self, facts: DataFacts) -> None:
        self.prepared = with_normalisation(self.prepared, facts)
        self.facts = self.prepared.facts

    def _assemble(self, precision: str | None, start: Start | None = None) -> None:
        config, settings = self.config, self.config["trainer"]
        self.loss_fn = build.loss(config, self.facts)
        self.model, self.init = build.initialised_model(config, self.facts, num_outputs=self.loss_fn.num_outputs)
        if start is not None:
            self.taken = take_weights(self.model, start, config=config, prepared=self.prepared)
            self.origin = self.taken.origin
            self._normalise_by(start.facts)
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
        self.watch = watch_over(config, self.prepared, self.trainer, init=self.init, say=self.console.warn)
        stopping = settings["early_stopping"]
        if stopping["patience"] is not None and self.val_inputs is None:
            raise ConfigError("trainer.early_stopping.patience needs validation images, and there are none")
        rules = {k: v for k, v in stopping.items() if k != "restore_best"}
        self.selection = Selection(**rules | {"min_steps": min(stopping.get("min_steps", 0), total_steps)})

    def _eval_inputs(self, split: str) -> Any:
        device = self.compute.device
        return build.eval_inputs(self.config, self.prepared, split, facts=self.facts, device=device)

    def _validate(self) -> EvaluationResult | None:
        return evaluate(
            self.model, self.loss_fn, self.val_inputs, compute=self.compute, should_stop=lambda: bool(self.stop)
        )

    def _restore(self, state: dict[str, Any]) -> None:
        """Takes over a saved state; what it is about on the disk is `_go_on_from`'s."""
        self.origin = state.get("init_from")
        self.trainer.load_state_dict(state["trainer"])
        self.watch.load_state_dict(state.get("diagnosis"))
        self.selection.load_state_dict(state["selection"])
        self.last = Evaluation(**state["last"]) if state["last"] else None
        self._seconds_before = float(state["seconds"])
        self._saved_position = self.trainer.position
        self.trainer.check_finite_weights()
        check_length(self.config, step=self.trainer.step, steps_per_epoch=self.trainer.steps_per_epoch)
        if self.selection.out_of_patience and state["total_steps"] < self.trainer.total_steps:
            self.selection.forgive()

    def _go_on_from(self, checkpoint: Loaded) -> None:
        """Brings the folder to where the checkpoint is: a process may have died at any moment after writing it."""
        state = checkpoint.state
        if state["is_best"]:
            steps = list_checkpoints(self.run_dir.checkpoint_dir, "step")
            mark_best(next(file for file in steps if file.path == checkpoint.path))
        if not self.run_dir.cut_metrics(state["metrics_num_bytes"]):
            self.console.warn(f"{self.run_dir.metrics_path} is shorter than it was: rows are missing")

    # ---------------------------------------------------------------------------------------- training

    def train(self) -> str:
        """Trains to the end.

        Returns:
            `finished` or `early_stopping`.

        Raises:
            InterruptedBySignal: A signal came; the state is saved.
            DivergedError: A number is not finite; no checkpoint holds it.
            NotLearningError: `trainer.on_not_learning=stop`, and nothing is learnt; the state is saved.
            MemoryLimitError: No room for a step.
            OutputError: metrics.csv cannot be written, or the last checkpoint.
        """
        trainer = self.trainer
        if self.selection.out_of_patience:
            return "early_stopping"
        self.console.training_starts(
            step=trainer.step,
            total_steps=trainer.total_steps,
            steps_per_epoch=trainer.steps_per_epoch,
            evaluate_every=trainer.evaluate_every,
        )
        self.stop.listening = True
        step_log = StepLog(self.config["trainer"].get("log_every"), say=self.console.say)
        try:
            for event in self._listen(trainer.run()):
                self.watch.see(event, trainer.totals)
                step_log.see(event, trainer.totals)
                if isinstance(event, Evaluation) and self._take_in(event):
                    break
                if self.watch.verdict:
                    self._give_up()
            if self.stop:
                self._interrupt()
        finally:
            self.console.end_bar()
        return "early_stopping" if self.selection.out_of_patience else "finished"

    def _listen(self, events: Iterator[Step | Evaluation]) -> Iterator[Step | Evaluation]:
        """Passes events on until a signal asks to stop, and saves between them when it is time."""
        every_seconds = 60 * self.config["trainer"]["checkpoint"]["every_minutes"]
        for event in events:
            yield event
            if self.stop:
                return
            if isinstance(event, Step):
                self.console.step(event.step)
                if time.monotonic() - self._checkpoints.saved_at > every_seconds:
                    self.save()

    def _give_up(self) -> None:
        self.save(must=True)
        raise self.watch.error(resume=f"cvtrain resume={self.run_dir.path}")

    def _interrupt(self) -> None:
        if self._saved_position != self.trainer.position:
            self.save(must=True)
        assert self.stop.signum is not None, "a stop has a signal"
        where = f"step {self.trainer.step} of {self.trainer.total_steps}"
        raise InterruptedBySignal(
            f"stopped by {described(self.stop.signum)} at {where}; the state is saved",
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
            "init_from": self.origin,
            "total_steps": self.trainer.total_steps,
            "seconds": self.seconds,
            "metrics_num_bytes": self.run_dir.metrics_num_bytes(),
            "selection": self.selection.state_dict(),
            "last": asdict(self.last) if self.last else None,
            "is_best": best is not None and best.step == self.trainer.step,
            "diagnosis": self.watch.state_dict(),
            "trainer": self.trainer.state_dict(),
        }

    @property
    def seconds(self) -> float:
        """Seconds that processes have worked on this run."""
        return self._seconds_before + time.monotonic() - self._started

    def save(self, *, is_best: bool = False, must: bool = False) -> None:
        """Writes a checkpoint of finite numbers; see `Safekeeping.save`.

        Raises:
            OutputError: It could not be written, and `must`.
            DivergedError: A weight is not finite.
        """
        self.trainer.check_finite_losses()
        self.trainer.check_finite_weights()
        if self._checkpoints.save(self.state_dict(), self.trainer.step, is_best=is_best, must=must):
            self._saved_position = self.trainer.position

    # ---------------------------------------------------------------------------------------- test

    def test(self, stop_reason: str) -> FitResult:
        """Looks at the test images once, with the best weights.

        Raises:
            CheckpointError: The best checkpoint is damaged.
            InterruptedBySignal: A signal came; the run goes on here when it is resumed.
        """
        self.stop.listening = True
        if self.config["trainer"]["early_stopping"]["restore_best"] and self.val_inputs is not None:
            best = self.selection.best
            load_best(self.model, self.run_dir.checkpoint_dir, best and best.step, note=self.console.warn)
        elif self.trainer.average is not None:
            load_weights(self.model, {"trainer": self.trainer.state_dict()})
        inputs = self._eval_inputs("test")
        done = iter(range(1, len(inputs) + 1))
        result = evaluate(
            self.model,
            self.loss_fn,
            inputs,
            compute=self.compute,
            collect=True,
            should_stop=lambda: bool(self.stop),
            on_batch=lambda: self.console.progress(next(done), len(inputs), "testing"),
        )
        if result is None:
            self._interrupt()
        assert result is not None, "a test that ends has a result"
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
