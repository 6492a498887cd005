import json
import statistics
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import search_for_tests
from search_for_tests import BEST_LR, WORDS, accuracy, course, opened, run_all, run_one, values

from cvtrain.errors import ConfigError, JobsFailedError
from cvtrain.jobs.stream import JobOutcome


def told(folder):
    return json.loads((Path(folder) / "search.json").read_text())


def statuses(folder):
    return [trial["status"] for trial in told(folder)["trials"]]


# ---------------------------------------------------------------------------------------------- what it proposes


def missed(folder, *, sampler, seed):
    """How far the best of 30 trials is below the best there is."""
    folder.mkdir()
    stream = opened(folder, sampler=sampler, seed=seed, num_trials=30, pruner="none")
    reached = []
    while (words := stream.next_job()) is not None:
        reached.append(accuracy(words))
        stream.ended(JobOutcome(words, "done", 0, reached[-1]))
    stream.abandon()
    return 0.9 - max(reached)


def test_tpe_comes_closer_to_the_best_than_random_trials(tmp_path):
    tpe = [missed(tmp_path / f"tpe{seed}", sampler="tpe", seed=seed) for seed in range(5)]
    at_random = [missed(tmp_path / f"random{seed}", sampler="random", seed=seed) for seed in range(5)]
    assert statistics.median(tpe) < statistics.median(at_random) / 3


def test_same_seed_gives_the_same_trials_and_another_seed_others(tmp_path):
    found = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        found[name] = [outcome.words for outcome in run_all(opened(tmp_path / name, num_trials=12, seed=seed))]
    assert len(found["a"]) == 12
    assert found["a"] == found["b"]
    assert not set(found["a"]) & set(found["c"])


def test_trials_at_the_same_time_differ(tmp_path):
    stream = opened(tmp_path, num_trials=20, num_startup_trials=2)
    for _ in range(6):
        run_one(stream, stream.next_job())
    at_once = [values(stream.next_job()) for _ in range(6)]
    assert len({tuple(typed.items()) for typed in at_once}) == 6
    lrs = sorted(float(typed["optimizer.lr"]) for typed in at_once)
    assert lrs[-1] > 2 * lrs[0], "not all at the one best place"


def test_grid_tries_every_combination_once(tmp_path, capsys):
    words = ("optimizer=sgd,adam", "optimizer.lr=0.0001,0.001,0.01,0.1")
    outcomes = run_all(opened(tmp_path, *words, sampler="grid", pruner="none", num_trials=20))
    assert len({outcome.words for outcome in outcomes}) == len(outcomes) == 8
    assert "trials: 8 done, of 20: there are no more combinations" in capsys.readouterr().out
    assert max(outcomes, key=lambda outcome: outcome.value).words == ("optimizer=sgd", "optimizer.lr=0.01")


def test_grid_of_endlessly_many_values_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"sampler=grid: optimizer\.lr has endlessly many values"):
        opened(tmp_path, sampler="grid")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_words_are_never_run_twice_and_a_small_space_is_run_out(tmp_path, sampler):
    words = ("optimizer=sgd,adam", "optimizer.lr=0.001,0.01,0.1")
    outcomes = run_all(opened(tmp_path, *words, sampler=sampler, pruner="none", num_trials=20))
    assert len({outcome.words for outcome in outcomes}) == len(outcomes) == 6
    assert len(told(tmp_path)["trials"]) == 6


def test_words_of_a_job_that_still_runs_are_not_given_again(tmp_path):
    words = ("optimizer=sgd,adam", "optimizer.lr=0.01,0.1")
    stream = opened(tmp_path, *words, num_trials=9, sampler="random", pruner="none")
    given = [stream.next_job() for _ in range(5)]
    assert given.pop() is None
    assert len(set(given)) == 4
    for each in given:
        run_one(stream, each)
    stream.close()
    assert statuses(tmp_path) == ["done"] * 4
    again = opened(tmp_path, *words, num_trials=9, sampler="random", pruner="none")
    assert again.next_job() is None, "trials that repeated others are not left to be run"


# ---------------------------------------------------------------------------------------------- early stops


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_pruning_stops_poor_jobs_and_never_the_best(tmp_path, pruner):
    outcomes = run_all(opened(tmp_path, sampler="random", pruner=pruner, num_trials=40))
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    pruned = [outcome for outcome in outcomes if outcome.status == "pruned"]
    assert len(pruned) >= 10
    assert max(outcomes, key=lambda outcome: accuracy(outcome.words)) in done
    assert statistics.mean(accuracy(each.words) for each in pruned) < statistics.mean(each.value for each in done)
    trials = told(tmp_path)["trials"]
    assert all(trial["pruned_at_step"] >= 200 for trial in trials if trial["status"] == "pruned")
    assert all(trial["pruned_at_step"] is None for trial in trials if trial["status"] == "done")


def test_no_job_is_stopped_before_its_time(tmp_path):
    outcomes = run_all(opened(tmp_path, sampler="random", num_trials=25, num_warmup_evaluations=3))
    pruned = [trial for trial in told(tmp_path)["trials"] if trial["status"] == "pruned"]
    assert len(outcomes) == 25
    assert pruned
    assert min(trial["pruned_at_step"] for trial in pruned) == 400


def test_without_a_pruner_every_job_comes_to_its_end(tmp_path):
    outcomes = run_all(opened(tmp_path, sampler="random", num_trials=15, pruner="none"))
    assert {outcome.status for outcome in outcomes} == {"done"}


def test_jobs_of_other_batch_sizes_are_compared_by_the_number_of_the_evaluation(tmp_path):
    stream = opened(tmp_path, sampler="random", num_trials=10, num_startup_trials=3, num_warmup_evaluations=1)
    for _ in range(3):
        words = stream.next_job()
        assert not any(stream.evaluated(words, 7 * i, 0.5 + i / 10) for i in (1, 2, 3))
        stream.ended(JobOutcome(words, "done", 0, 0.8))
    words = stream.next_job()
    assert not stream.evaluated(words, 1000, 0.1)
    assert stream.evaluated(words, 2000, 0.1), "the median of second evaluations is 0.7"


# ---------------------------------------------------------------------------------------------- failures


def test_failed_and_diverged_jobs_are_failed_trials(tmp_path, capsys):
    def fails(words):
        return "the loss is not finite" if float(values(words)["optimizer.lr"]) > 0.01 else None

    outcomes = run_all(opened(tmp_path, num_trials=15, pruner="none"), fails=fails)
    failed = [trial for trial in told(tmp_path)["trials"] if trial["status"] == "failed"]
    assert 1 <= len(failed) == sum(outcome.status == "failed" for outcome in outcomes) < 15
    assert {trial["error"] for trial in failed} == {"the loss is not finite"}
    assert f"{15 - len(failed)} done, {len(failed)} failed, of 15" in capsys.readouterr().out


def test_a_search_whose_first_jobs_all_fail_ends_and_says_so(tmp_path, capsys):
    stream = opened(tmp_path, num_trials=50)
    num = 0
    while (words := stream.next_job()) is not None:
        run_one(stream, words, fails=lambda words: "no space left on device")
        num += 1
    with pytest.raises(JobsFailedError, match="5 jobs are not done"):
        stream.close()
    assert num == 5
    assert "its first 5 jobs have all failed; the last one: no space left on device" in capsys.readouterr().out


def test_job_without_a_validation_accuracy_is_told_why_it_cannot_count(tmp_path):
    stream = opened(tmp_path, num_trials=4)
    for value in (None, float("nan")):
        stream.ended(JobOutcome(stream.next_job(), "done", 0, value))
    assert [trial["error"] for trial in told(tmp_path)["trials"]] == [
        "it has no validation accuracy, which a search goes by: data.val_fraction=0.1"
    ] * 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sampler": "tpee"}, r"hydra\.sweeper\.sampler=tpee: did you mean tpe\?"),
        ({"pruner": "hyperband"}, r"hydra\.sweeper\.pruner=hyperband: There are median, asha, none"),
        ({"num_trials": 0}, r"hydra\.sweeper\.num_trials=0: a whole number, 1 or more"),
        ({"batch_size": -1}, r"hydra\.sweeper\.batch_size=-1"),
        ({"seed": -1}, r"hydra\.sweeper\.seed=-1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(tmp_path, options, problem):
    with pytest.raises(ConfigError, match=problem):
        opened(tmp_path, **options)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- the end


def test_conclusion_names_the_best_its_command_and_how_far_to_trust_it(tmp_path, capsys):
    run_all(opened(tmp_path, *WORDS, "data.token=abc", "model.name='a b'", "sweep.name=x", num_trials=25))
    out = capsys.readouterr().out
    trials = told(tmp_path)["trials"]
    best = max((t for t in trials if t["status"] == "done"), key=lambda trial: trial["val_accuracy"])
    assert told(tmp_path)["best"] == best["number"]
    lr = float(best["values"]["optimizer.lr"])
    assert abs(lr - BEST_LR[best["values"]["optimizer"]]) < 0.5 * lr
    words = f"optimizer={best['values']['optimizer']} optimizer.lr={lr}"
    assert f"best     trial {best['number']}, validation {100 * best['val_accuracy']:.1f} %: {words}" in out
    assert f"cvtrain data=digits {words} 'data.token=***' 'model.name='\"'\"'a b'\"'\"''" in out
    assert "by the validation images of one seed: part of it is luck" in out
    assert "matters  optimizer.lr" in out
    assert "sweep.name" not in out


def test_a_best_value_at_an_end_of_its_interval_is_told(tmp_path, capsys):
    run_all(opened(tmp_path, "optimizer=sgd", "optimizer.lr=interval(0.03,0.05)", num_trials=12, pruner="none"))
    assert "is at an end of interval(0.03,0.05): widen it" in capsys.readouterr().out


def test_secrets_are_written_nowhere(tmp_path, capsys):
    stream = opened(tmp_path, *WORDS, "data.token=t0psecret", num_trials=3)
    run_all(stream, fails=lambda words: None if values(words)["optimizer.lr"] < "0.01" else "token t0psecret refused")
    assert len(list(tmp_path.iterdir())) == 2
    assert not any("t0psecret" in path.read_text() for path in tmp_path.iterdir())
    assert "t0psecret" not in capsys.readouterr().out
    assert any("token *** refused" in (trial["error"] or "") for trial in told(tmp_path)["trials"])


def test_optuna_learns_from_the_values_that_were_typed(tmp_path):
    outcomes = run_all(opened(tmp_path, num_trials=12, pruner="none"))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "search.journal"))
    (study,) = optuna.study.get_all_study_summaries(optuna.storages.JournalStorage(backend))
    kept = optuna.load_study(study_name=study.study_name, storage=optuna.storages.JournalStorage(backend)).trials
    lrs = [values(outcome.words)["optimizer.lr"] for outcome in outcomes]
    assert [trial.params["optimizer.lr"] for trial in kept] == [float(lr) for lr in lrs]
    assert max(len(lr.lstrip("0.")) for lr in lrs) == 4


# ---------------------------------------------------------------------------------------------- going on


def test_killed_search_goes_on_and_ends_with_the_trials_of_an_unbroken_one(tmp_path, capsys):
    (tmp_path / "killed").mkdir()
    (tmp_path / "unbroken").mkdir()
    program = Path(search_for_tests.__file__)
    killed = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "killed"), "7"], capture_output=True, text=True, timeout=60
    )
    assert (killed.returncode, killed.stderr) == (-9, ""), "Optuna says nothing itself"
    broken = tuple(killed.stdout.splitlines()[-1].split())
    before = [trial["words"] for trial in told(tmp_path / "killed")["trials"]]
    assert len(before) == 7

    stream = opened(tmp_path / "killed", num_trials=12)
    assert "goes on: 7 trials ended before, 1 broken off or failed and begun again" in capsys.readouterr().out
    assert stream.next_job() == broken, "the job that was running is the first to go on"
    # It goes on from its checkpoint: the second evaluation is heard of again, the first is not.
    is_pruned = [stream.evaluated(broken, 100 * i, val) for i, val in enumerate(course(broken), start=1) if i > 1]
    assert not any(is_pruned)
    stream.ended(JobOutcome(broken, "done", 0, accuracy(broken)))
    rest = run_all(stream)
    unbroken = run_all(opened(tmp_path / "unbroken", num_trials=12))
    assert [outcome.words for outcome in rest] == [outcome.words for outcome in unbroken[8:]]
    assert told(tmp_path / "killed") == told(tmp_path / "unbroken")
    assert told(tmp_path / "killed")["trials"][7]["evaluations"] == [
        [100 * i, val] for i, val in enumerate(course(broken), start=1)
    ]


def test_finished_search_does_nothing_more_and_a_larger_number_adds_trials(tmp_path):
    first = run_all(opened(tmp_path, num_trials=6))
    assert run_all(opened(tmp_path, num_trials=6)) == []
    more = run_all(opened(tmp_path, num_trials=9))
    assert len(more) == 3
    assert not {outcome.words for outcome in first} & {outcome.words for outcome in more}


def test_job_stopped_by_a_signal_is_begun_again(tmp_path):
    stream = opened(tmp_path, num_trials=3)
    words = stream.next_job()
    stream.ended(JobOutcome(words, "stopped", 130))
    stream.abandon()
    again = opened(tmp_path, num_trials=3, retry_failed=False)
    assert again.next_job() == words
    run_one(again, words)
    run_all(again)
    assert statuses(tmp_path) == ["done"] * 3


def test_failed_jobs_are_begun_again_but_for_those_that_diverged(tmp_path):
    stream = opened(tmp_path, num_trials=3)
    done, failed, diverged = (stream.next_job() for _ in range(3))
    stream.ended(JobOutcome(done, "done", 0, 0.5))
    stream.ended(JobOutcome(failed, "failed", 1, error="the disk is full"))
    stream.ended(JobOutcome(diverged, "failed", 5, error="the loss is not finite"))
    stream.close()
    kept = opened(tmp_path, num_trials=3, retry_failed=False)
    assert kept.next_job() is None
    kept.close()
    again = opened(tmp_path, num_trials=3)
    assert again.next_job() == failed
    run_one(again, failed)
    assert again.next_job() is None
    assert statuses(tmp_path) == ["done", "failed", "done"]


def test_other_values_of_the_same_keys_keep_the_trials_that_lie_among_them(tmp_path, capsys):
    first = run_all(opened(tmp_path, num_trials=10, pruner="none"))
    narrow = ("data=digits", "optimizer=sgd,adam,muon", "optimizer.lr=tag(log,interval(1e-3,1))")
    kept = [each for each in first if float(values(each.words)["optimizer.lr"]) >= 1e-3]
    assert 0 < len(kept) < 10
    stream = opened(tmp_path, *narrow, num_trials=12)
    out = capsys.readouterr().out
    assert f"{len(kept)} of those trials lie among the new ones and count, {10 - len(kept)} do not" in out
    run = 0
    while (words := stream.next_job()) is not None:
        assert words not in {each.words for each in first}
        stream.ended(JobOutcome(words, "done", 0, 0.5))
        run += 1
    stream.close()
    assert run == 12 - len(kept)
    back = opened(tmp_path, num_trials=10)
    assert back.next_job() is None, "the first space still has its trials"


def test_trial_that_was_running_goes_on_in_a_wider_space(tmp_path):
    stream = opened(tmp_path, num_trials=5)
    words = stream.next_job()
    stream.evaluated(words, 100, 0.5)
    stream.abandon()
    wider = opened(tmp_path, WORDS[0], WORDS[1], "optimizer.lr=tag(log,interval(1e-5,1))", num_trials=5)
    assert wider.next_job() == words
    run_one(wider, words)
    assert told(tmp_path)["trials"][0]["evaluations"][0] == [100, 0.5]


def test_other_fixed_words_are_refused_and_named(tmp_path):
    run_all(opened(tmp_path, *WORDS, "model=mlp", "output_dir=a", num_trials=2))
    with pytest.raises(ConfigError, match="model=mlp, and now model=lenet") as raised:
        opened(tmp_path, *WORDS, "model=lenet", "output_dir=b", num_trials=4)
    assert "sweep.name" in raised.value.hint
    with pytest.raises(ConfigError, match=r"no trainer\.epochs, and now trainer\.epochs=3"):
        opened(tmp_path, *WORDS, "trainer.epochs=3", "model=mlp", num_trials=4)
    assert len(run_all(opened(tmp_path, *WORDS, "model=mlp", "output_dir=b", "sweep.jobs=2", num_trials=4))) == 2
