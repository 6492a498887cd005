"""Runs whose numbers stop being finite: they end, say where, and keep nothing that is not finite."""

import pytest
import torch

from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint


def tensors(state):
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list | tuple):
        return [tensor for item in state for tensor in tensors(item)]
    return [state] if isinstance(state, torch.Tensor) else []


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.lr=1e20"],
        ["optimizer.lr=1e20", "trainer.accumulate=2", "trainer.precision=bf16"],
        ["optimizer.lr=1e20", "scheduler=constant", "data.val_fraction=0", "trainer.early_stopping.patience=null"],
        ["optimizer=sgd", "optimizer.lr=3e37", "scheduler=linear", "scheduler.warmup_steps=5"],
    ],
)
def test_diverged_run_stops_and_keeps_finite_checkpoints_only(settings, server, words, only_run, read_card, tmp_path):
    ended = server(words("trainer.checkpoint.every_minutes=1e-9", *settings, steps=100, every=3), cwd=tmp_path)
    assert ended.code == 5, ended.stdout + ended.stderr
    assert "is not a finite number at step " in ended.stderr
    assert "(lr " in ended.stderr
    assert "try a smaller optimizer.lr" in ended.stderr
    assert len(ended.stderr.splitlines()) <= 6
    run = only_run(tmp_path)
    card = read_card(run)  # strict JSON
    assert (card["status"], card["stop_reason"], card["exit_code"]) == ("failed", "diverged", 5)
    assert card["error"] in ended.stderr
    step = int(ended.stderr.partition("at step ")[2].split()[0])
    files = list_checkpoints(run / "checkpoints", "step") + list_checkpoints(run / "checkpoints", "best")
    assert files
    assert all(file.step < step for file in files)
    for file in files:
        for tensor in tensors(read_checkpoint(file.path)):
            assert torch.isfinite(tensor).all(), file.path.name
    if (run / "metrics.csv").exists():
        assert not {"nan", "inf", "-inf"} & set((run / "metrics.csv").read_text().replace("\n", ",").split(","))
