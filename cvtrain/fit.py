"""One training run from its first step, or from its last checkpoint, to the test of its best weights.

Knows how parts, checkpoints, metrics and early stopping come together; neither Hydra nor how anything is printed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from cvtrain import build
from cvtrain.config import Config, masked
from cvtrain.console import Console
from cvtrain.data.facts import DataFacts
from cvtrain.engine.checkpoint import Loaded
from cvtrain.engine.determinism import refusals_explained
from cvtrain.engine.distributed.team import Team, Wishes
from cvtrain.engine.evaluator import EvaluationResult, evaluate
from cvtrain.engine.events import Evaluation, Step
from cvtrain.engine.memory import EVALUATION, PartedWork
from cvtrain.engine.selection import Selection
from cvtrain.errors import ConfigError, DataError, InterruptedBySignal, MemoryLimitError, NotLearningError
from cvtrain.init_from import Start, read_start, with_normalisation
from cvtrain.launch import resume_command
from cvtrain.outputs import RunDir
from cvtrain.parts import make_parts, make_trainer
from cvtrain.rehearsal import check_determinism
from cvtrain.results import FitResult
from cvtrain.resume import check_length, check_machine, check_run, circumstances, explained, load_best, load_weights
from cvtrain.safekeeping import Safekeeping
from cvtrain.saved_model import read_model
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
        team: The processes that train together; all make a run of the same state, and the first one alone writes.

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
        team: Team | None = None,
    ) -> None:
        self.config, self.prepared, self.facts = config, prepared, prepared.facts
        self.run_dir, self.console, self.stop, self.team = run_dir, console, stop, team
        self._rank, self._writes = (None, True) if team is None else (team.rank, team.is_first)
        self._started, self._seconds_before = time.monotonic(), 0.0
        self._checkpoints = Safekeeping(run_dir, keep=config["trainer"]["checkpoint"]["keep"], warn=console.warn)
        self._saved_position = (0, 0)
        self.last: Evaluation | None = None
        self.on_evaluation = lambda: None  # called when there is a row more, and what can be saved of it is
        self.origin: dict[str, Any] | None  # of the first weights
        self.warnings: list[str] = []
        if checkpoint:
            with explained(checkpoint.path):
                self.warnings += check_run(checkpoint.state, config, prepared, roles_path=run_dir.split_path)
                self.prepared = with_normalisation(prepared, DataFacts.from_plain(checkpoint.state["facts"]))
                precision = read_model(checkpoint).precision
            self._assemble(precision)
            with explained(checkpoint.path):
                self.warnings += check_machine(checkpoint.state, config, self.compute, self.team)
                self._restore(checkpoint.state)
            for warning in self.warnings:
                console.warn(warning)
            if self._writes:
                self._checkpoints.go_on_from(checkpoint)
        else:
            self._assemble(None, start or read_start(config))
            if self._writes:
                run_dir.cut_metrics(0)  # rows of a process that was killed before its first checkpoint

    def _assemble(self, precision: str | None, start: Start | None = None) -> None:
        config, settings = self.config, self.config["trainer"]
        check_determinism(config, self.facts)
        parts = make_parts(config, self.prepared, precision=precision, start=start, team=self.team)
        self.prepared, self.facts = parts.prepared, parts.prepared.facts
        self.loss_fn, self.model, self.init, self.compute = parts.loss_fn, parts.model, parts.init, parts.compute
        self.taken, self.origin = parts.taken, parts.taken.origin if parts.taken else None
        self.val_inputs = self._eval_inputs("val") if len(self.prepared.split.val) else None
        self._parted_evaluation = PartedWork(EVALUATION, self.compute.device, warn=self._warn)
        validate = partial(self._evaluate, self.val_inputs) if self.val_inputs is not None else None
        self.trainer = make_trainer(config, parts, evaluate_fn=validate, warn=self._warn)
        if self.team:
            self.team.ask = self._wishes
        self.watch = watch_over(config, self.prepared, self.trainer, init=self.init, say=self.console.warn)
        stopping = settings["early_stopping"]
        if stopping["patience"] is not None and self.val_inputs is None:
            raise ConfigError("trainer.early_stopping.patience needs validation images, and there are none")
        rules = {k: v for k, v in stopping.items() if k != "restore_best"}
        self.selection = Selection(**rules | {"min_steps": min(stopping.get("min_steps", 0), self.trainer.total_steps)})

    def _eval_inputs(self, split: str) -> Any:
        device = self.compute.device
        return build.eval_inputs(self.config, self.prepared, split, facts=self.facts, device=device, rank=self._rank)

    def _warn(self, sentence: str) -> None:
        """Says something now, and once more on the run card."""
        self.warnings.append(sentence)
        self.console.warn(sentence)

    def _evaluate(self, inputs: Any, **options: Any) -> EvaluationResult | None:
        stop, parted = lambda: bool(self.stop), self._parted_evaluation
        options |= {"compute": self.compute, "should_stop": stop, "team": self.team, "parted": parted}
        return evaluate(self.model, self.loss_fn, inputs, **options)

    def _restore(self, state: dict[str, Any]) -> None:
        """Takes over a saved state; what it is about on the disk is `Safekeeping.go_on_from`'s."""
        self.origin = state.get("init_from")
        self.trainer.load_state_dict(state["trainer"])
        self.watch.load_state_dict(state.get("diagnosis"))
        self.selection.load_state_dict(state["selection"])
        self.last = Evaluation(**state["last"]) if state["last"] else None
        self._seconds_before = float(state["seconds"])
        self._saved_position = self.trainer.position
        self.trainer.check_finite()
        if self.trainer.num_parts > self.config["trainer"]["accumulate"]:
            self.warnings.append(f"memory did not suffice before: steps are computed in {self.trainer.num_parts} parts")
        check_length(self.config, step=self.trainer.step, steps_per_epoch=self.trainer.steps_per_epoch)
        if self.selection.out_of_patience and state["total_steps"] < self.trainer.total_steps:
            self.selection.forgive()

    @refusals_explained()
    def train(self) -> str:
        """Trains to the end.

        Returns:
            `finished` or `early_stopping`.

        Raises:
            InterruptedBySignal, DataError: A signal came, or an image cannot be read any more; the state is saved.
            DivergedError: A number is not finite; no checkpoint holds it.
            NotLearningError: `trainer.on_not_learning=stop`, and nothing is learnt; the state is saved.
            MemoryLimitError: No room for a step.
            OutputError: metrics.csv cannot be written, or the last checkpoint.
        """
        trainer = self.trainer
        if self.selection.out_of_patience:
            return "early_stopping"
        length = {"step": trainer.step, "total_steps": trainer.total_steps, "steps_per_epoch": trainer.steps_per_epoch}
        self.console.training_starts(**length, evaluate_every=trainer.evaluate_every)
        self.stop.listening = True
        step_log = StepLog(self.config["trainer"].get("log_every"), say=self.console.say)
        try:
            for event in self._listen(trainer.run()):
                self.watch.see(event, trainer.totals)
                step_log.see(event, trainer.totals)
                if isinstance(event, Evaluation) and self._take_in(event):
                    break
            self._end_if_told()
        except (DataError, MemoryLimitError) as error:  # an image could be read, and memory sufficed, at the start
            self._save_before(error)
            raise
        finally:
            self.console.end_bar()
        return "early_stopping" if self.selection.out_of_patience else "finished"

    def _listen(self, events: Iterator[Step | Evaluation]) -> Iterator[Step | Evaluation]:
        """Passes events on until a signal asks to stop, and saves between them when it is time."""
        for event in events:
            yield event
            wishes = self._wishes()
            if self.team:
                wishes = self.team.heard if isinstance(event, Step) else Wishes()
            if wishes.signum or wishes.give_up:
                return
            if isinstance(event, Step):
                self.console.step(event.step, self.trainer.running_figures)
                if wishes.save:
                    self.save()

    def _wishes(self) -> Wishes:
        """What this process wants after a step; signals may come to any, all else is for the first one to say."""
        every_seconds = 60 * self.config["trainer"]["checkpoint"]["every_minutes"]
        is_time = time.monotonic() - self._checkpoints.saved_at > every_seconds
        return Wishes(self.stop.signum or 0, is_time and self._writes, bool(self.watch.verdict) and self._writes)

    def _end_if_told(self) -> None:
        """Saves and ends the run where a signal, or a verdict, asks for it, in any process."""
        wishes = self.team.decide() if self.team else self._wishes()
        if wishes.give_up and not self.selection.out_of_patience:
            self._give_up()
        if wishes.signum:
            self._interrupt(wishes.signum)

    def _give_up(self) -> None:
        self.save(must=True)
        if self.watch.verdict is None:
            raise NotLearningError("the first process has found that nothing is learnt")
        raise self.watch.error(resume=resume_command(self.run_dir.path, self._rank))

    def _save_before(self, error: DataError | MemoryLimitError) -> None:
        """Saves the last whole step of a run that cannot go on now; the error then says how to go on later."""
        if self.team is None and self.trainer.is_whole:
            if self._saved_position != self.trainer.position:
                self.save()
            remedy = f"{error.hint or 'put it back as it was'}, {'and' if isinstance(error, DataError) else 'or'}"
            error.hint = f"{remedy} continue with: {resume_command(self.run_dir.path, self._rank)}"

    def _interrupt(self, signum: int) -> None:
        if self._saved_position != self.trainer.position:
            self.save(must=True)
        where = f"step {self.trainer.step} of {self.trainer.total_steps}"
        raise InterruptedBySignal(
            f"stopped by {described(signum)} at {where}; the state is saved",
            signum=signum,
            hint=f"continue with: {resume_command(self.run_dir.path, self._rank)}",
        )

    def _take_in(self, evaluation: Evaluation) -> bool:
        """Writes, shows and saves an evaluation; returns whether patience is at its end."""
        if self._writes:
            self.run_dir.append_metrics(evaluation)
        is_best = self.selection.observe(evaluation)
        self.last = evaluation
        self.console.evaluation(evaluation, is_best=is_best)
        is_over = self.trainer.step >= self.trainer.total_steps or self.selection.out_of_patience
        self.save(is_best=is_best, must=is_over)
        self.on_evaluation()
        return self.selection.out_of_patience

    def state_dict(self) -> dict[str, Any]:
        """The whole state of the run, and what is needed to understand it without its folder."""
        best = self.selection.best
        return {
            "config": masked(self.config),
            "facts": self.facts.to_plain(),
            "precision": self.compute.precision,
            "circumstances": circumstances(self.compute, self.team),
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
            DivergedError: A number is not finite.
        """
        self.trainer.check_finite()
        state = self.state_dict()
        is_saved = self._writes and self._checkpoints.save(state, self.trainer.step, is_best=is_best, must=must)
        if self.team.is_so_for_first(is_saved) if self.team else is_saved:
            self._saved_position = self.trainer.position

    @refusals_explained()
    def test(self, stop_reason: str) -> FitResult:
        """Looks at the test images once, with the best weights.

        Raises:
            CheckpointError: The best checkpoint is damaged.
            DivergedError: The loss is not finite.
            InterruptedBySignal: A signal came; the run goes on here when it is resumed.
        """
        self.stop.listening = True
        if self.config["trainer"]["early_stopping"]["restore_best"] and self.val_inputs is not None:
            best = self.selection.best
            if self._writes:
                load_best(self.model, self.run_dir.checkpoint_dir, best and best.step, note=self.console.warn)
            if self.team:
                self.team.spread(self.model)
        elif self.trainer.average is not None:
            load_weights(self.model, {"trainer": self.trainer.state_dict()})
        inputs = self._eval_inputs("test")
        done = iter(range(1, len(inputs) + 1))
        tell = lambda: self.console.progress(next(done), len(inputs), "testing")  # noqa: E731
        result = self._evaluate(inputs, collect=True, on_batch=tell)
        if result is None:
            self._end_if_told()
        assert result is not None, "a test that ends has a result"
        result.check_finite("test")
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
