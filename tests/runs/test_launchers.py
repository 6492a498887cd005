"""Multiruns under the launchers of others, as real processes: joblib, submitit on this machine, submitit with a SLURM.

There is no SLURM here: programs of its names stand in for it. They begin what they are given, tell how it ended, and
begin it again when they are asked to.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import cvtrain

sys.path.insert(0, str(Path(__file__).parent))
from copies_for_tests import Copies
from sweeps_for_tests import leaderboard, no_process_below, records, wait_until, with_troubled_model

pytestmark = pytest.mark.long  # about two minutes on two cores

# A model that behaves as its case says in its third step, the first time that it comes so far.
TROUBLE = """
import os, pathlib, signal, sys, time
import torch
from torch import nn

WAYS = ("well", "exception", "exit", "diverge", "kill", "SIGUSR2", "SIGTERM", "wait")


class Troubled(nn.Module):
    def __init__(self, num_classes, in_channels, image_size, case, password):
        super().__init__()
        self.layer = nn.Linear(in_channels * image_size**2, num_classes)
        self.way, self.num_steps = WAYS[case % 10], 0

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        if logits.device.type == "meta" or not self.training:
            return logits
        rank = os.environ.get("RANK", "0")
        with open("steps.txt", "a") as file:
            file.write(f"{self.way} {rank} {torch.get_num_threads()}\\n")
        self.num_steps += 1
        met = pathlib.Path(f"{self.way}{rank}.met")
        if self.num_steps != 3 or met.exists():
            return logits
        met.write_text(str(os.getpid()))
        if self.way == "exception":
            raise KeyError("no such thing")
        if self.way == "exit":
            sys.exit(3)
        if self.way == "kill":
            time.sleep(1.0)  # others are to be done
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "SIGTERM":  # SLURM sends it, and queues the job again itself
            again = pathlib.Path(os.environ["SLURM_FOR_TESTS"], os.environ["SLURM_FOR_TESTS_JOB"] + ".again")
            again.write_text("8")  # seconds in the queue, during which nobody is at work on it
        if self.way.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.way))
        if self.way == "wait":
            time.sleep(60)
        return logits * float("nan") if self.way == "diverge" else logits
"""
OPTIONS = "case: 0\npassword: none\n"
NUM_STEPS = 6
WORDS = [
    *("--multirun", "--config-dir", "own", "plugins=[trouble]", "model=troubled", "sweep.name=s", "output_dir=out"),
    *("data=synthetic", "data.num_classes=2", "data.per_class=12", "data.image_size=8", "trainer.precision=fp32"),
    *(f"trainer.steps={NUM_STEPS}", "trainer.batch_size=4", "trainer.evaluate_every=2"),
    *("trainer.checkpoint.every_minutes=0.0001",),
]
LOCAL = ["hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=1"]
SECRET = "model.password=hunter2"
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]

# In each copy submitit waits a second, not 15, for a result that a slow disk might still bring.
PREPARE = """
import torch._dynamo
import cvtrain.check, cvtrain.jobs.driver, cvtrain.jobs.summary, cvtrain.multirun, cvtrain.report.plots
import submitit.core.core
submitit.core.core.Job._results_timeout_s = 1
"""

# sbatch, srun, scontrol and sacct, as far as submitit asks for them; each task of a job is looked after by a process.
SLURM = """#!{python} -S
import os, re, subprocess, sys, time
from pathlib import Path

program, words, home = Path(sys.argv[0]).name, sys.argv[1:], Path(os.environ["SLURM_FOR_TESTS"])

if program == "sbatch":
    number, script = str(1 + len(list(home.glob("*.sh")))), Path(words[0]).read_text()
    (home / f"{{number}}.sh").write_text(script)
    array = re.search("--array=0-([0-9]+)", script)
    for job in [f"{{number}}_{{i}}" for i in range(int(array[1]) + 1)] if array else [number]:
        (home / f"{{job}}.state").write_text("PENDING")
        log = open(home / "slurmd.txt", "a")
        subprocess.Popen([home / "slurmd", job], start_new_session=True, stdout=log, stderr=log)
    print(f"Submitted batch job {{number}}")
elif program == "slurmd":
    state, again = home / f"{{words[0]}}.state", home / f"{{words[0]}}.again"
    number, _, task = words[0].partition("_")
    os.environ |= {{"SLURM_JOB_ID": number, "SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
                   "SLURM_FOR_TESTS_JOB": words[0]}}
    if task:
        os.environ |= {{"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task}}
    (home / f"{{words[0]}}.pid").write_text(str(os.getpid()))
    while True:
        state.write_text("RUNNING")
        code = subprocess.call(["bash", str(home / f"{{number}}.sh")])
        if not again.exists():
            break
        state.write_text("PENDING")
        time.sleep(float(again.read_text()))
        again.unlink()
    state.write_text("FAILED" if code else "COMPLETED")
elif program == "srun":
    number, _, task = os.environ["SLURM_FOR_TESTS_JOB"].partition("_")
    values = {{"%A": number, "%a": task, "%j": number, "%t": "0"}}
    for name, descriptor in (("--output", 1), ("--error", 2)):
        path = re.sub("%[Aajt]", lambda found: values[found[0]], words[words.index(name) + 1])
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # sooner than submitit does it
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    command = words[words.index("-u") - 1 :]
    os.execvp(command[0], command)
elif program == "scontrol":
    (home / f"{{words[1]}}.again").write_text("0")
elif program == "sacct":
    print("JobID|State|NodeList")
    for path in home.glob("*.state"):
        print(f"{{path.stem}}|{{path.read_text()}}|here")
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    errors: str


class Drivers(Copies):
    """Runs multiruns of the troubled model."""

    @contextlib.contextmanager
    def start(self, home, *words, **environment):
        """Starts a command line; yields the number of its process and what waits for its end."""
        kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        paths = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**kept, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment}
        with super().start([*WORDS, *words], cwd=home, environments=[environment]) as ((pid,), wait):
            yield pid, lambda: one_of(wait())

    def __call__(self, home, *words, **environment):
        """Runs a command line to its end."""
        with self.start(home, *words, **environment) as (_, wait):
            return wait()


def one_of(ended):
    return Ended(ended.codes[0], ended.out[0], ended.errors[0])


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """Runs a multirun: `drive(home, *words)`."""
    drivers = Drivers(tmp_path_factory.mktemp("drivers"), prepare=PREPARE)
    yield drivers
    drivers.close()


@pytest.fixture
def home(tmp_path):
    """A folder with the troubled model."""
    return with_troubled_model(tmp_path, source=TROUBLE, options=OPTIONS)


@pytest.fixture
def slurm(tmp_path):
    """A folder with programs of SLURM's names; what they have begun ends with the test."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sbatch", "slurmd", "srun", "scontrol", "sacct"):
        (folder / name).write_text(SLURM.format(python=sys.executable))
        (folder / name).chmod(0o755)
    yield {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "SLURM_FOR_TESTS": str(folder)}
    for path in folder.glob("*.pid"):
        if path.with_suffix(".state").read_text() not in ("COMPLETED", "FAILED"):
            os.killpg(int(path.read_text()), signal.SIGKILL)


def statuses(home):
    return {int(row["model.case"]): row["status"] for row in leaderboard(home)}


def attempts(home):
    return {int(record["overrides"]["model.case"]): record["attempts"] for record in records(home)}


def steps(home):
    """How many steps were computed, by way."""
    return Counter(line.split()[0] for line in (home / "steps.txt").read_text().splitlines())


def num_threads(home):
    return {int(line.split()[2]) for line in (home / "steps.txt").read_text().splitlines()}


def is_done(home, case):
    found = {int(record["overrides"]["model.case"]): record["status"] for record in records(home)}
    return found.get(case) == "done"


def left_by_launcher(home):
    """The names of the files that stay in the launcher's folder, without numbers."""
    folder = home / "out" / "sweeps" / "s" / "launcher"
    return {path.name.strip("0123456789_") for path in folder.rglob("[!.]*") if path.is_file()}


def assert_no_secret(home):
    found = [path for path in (home / "out").rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert not found


def assert_in_words(ended):
    assert "Traceback" not in ended.out + ended.errors
    assert 0 < len(ended.errors.splitlines()) <= 6


def test_joblib_sweep_survives_failing_jobs_and_runs_again_what_is_not_done(drive, home):
    words = ["model.case=0,1,2,3,4", SECRET]
    ended = drive(home, *JOBLIB, *words)
    assert ended.code == 1
    assert statuses(home) == {
        0: "done",
        1: "failed",
        2: "failed",
        3: "failed",
        4: "stopped",
    }
    assert_in_words(ended)
    assert "hydra/launcher=joblib: a process was killed" in ended.errors
    lines = ended.out.splitlines()
    assert "model.case=0: begins" in lines
    assert any(line.startswith("model.case=0: validation ") for line in lines)
    assert any(line.startswith("model.case=2: failed: sys.exit(3) was called; log out/sweeps/s/") for line in lines)
    assert "1 of 5 jobs done" in lines
    assert max(num_threads(home)) <= max(len(os.sched_getaffinity(0)) // 2, 1)

    ended = drive(home, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", *words)
    assert ended.code == 0, ended.errors
    assert "1 of them done already" in ended.out
    assert "model.case=0: begins" not in ended.out
    assert attempts(home) == {0: 1, 1: 2, 2: 2, 3: 2, 4: 2}
    assert steps(home)["well"] == NUM_STEPS
    assert left_by_launcher(home) == set()
    assert_no_secret(home)


def test_interrupted_job_goes_on_whoever_drives_it(drive, home):
    words = [*LOCAL, "model.case=0,7", SECRET]
    with drive.start(home, *words) as (pid, wait):
        wait_until(lambda: (home / "wait0.met").exists() and is_done(home, 0))
        os.kill(pid, signal.SIGKILL)
        assert wait().code == -signal.SIGKILL
        with drive.start(home, *words) as (_, wait_again):
            wait_until(lambda: "waits for jobs" in (home / "stdout0.txt").read_text())
            os.kill(int((home / "wait0.met").read_text()), signal.SIGKILL)
            ended = wait_again()
    assert ended.code == 0, ended.errors
    assert "1 of them done already" in ended.out
    assert attempts(home) == {0: 1, 7: 2}
    assert steps(home) == {"well": NUM_STEPS, "wait": NUM_STEPS + 1}  # killed in the third step, not after it
    assert num_threads(home) == {1}


def test_slurm_jobs_go_on_after_preemption_and_the_driver_waits_for_all(drive, home, slurm):
    ended = drive(home, "hydra/launcher=submitit_slurm", "model.case=4,5,6", SECRET, **slurm)
    assert ended.code == 1
    assert statuses(home) == {4: "stopped", 5: "done", 6: "done"}
    assert attempts(home) == {4: 1, 5: 2, 6: 2}
    assert steps(home) == {"kill": 3, "SIGUSR2": NUM_STEPS, "SIGTERM": NUM_STEPS}
    assert num_threads(home) == {1}
    (log,) = home.glob("out/sweeps/s/launcher/*/.submitit/1_2/1_2_0_log.out")
    assert log.read_text().count("Job completed successfully") == 1  # not after SIGTERM: SLURM decides what comes then
    assert_in_words(ended)
    assert "hydra/launcher=submitit_slurm: a job ended without saying what became of it" in ended.errors
    assert left_by_launcher(home) == {"log.out", "log.err", "submission.sh"}
    assert_no_secret(home)

    ended = drive(home, "hydra/launcher=submitit_slurm", "model.case=4,5,6", SECRET, **slurm)
    assert ended.code == 0, ended.errors
    assert attempts(home) == {4: 2, 5: 2, 6: 2}
    assert steps(home) == {"kill": NUM_STEPS + 1, "SIGUSR2": NUM_STEPS, "SIGTERM": NUM_STEPS}


def test_processes_of_a_submitted_job_train_one_model_and_go_on_with_it(drive, home):
    ended = drive(home, *LOCAL, "hydra.launcher.tasks_per_node=2", "trainer=ddp", "model.case=5")
    assert ended.code == 0, ended.errors
    assert attempts(home) == {5: 2}
    assert Counter((home / "steps.txt").read_text().splitlines()) == {
        "SIGUSR2 0 1": NUM_STEPS,
        "SIGUSR2 1 1": NUM_STEPS,
    }
    (log,) = home.glob("out/sweeps/s/*/log.txt")
    assert "; 2 processes" in log.read_text()


def test_hydras_own_launcher_and_sweeper_run_a_grid_and_leave_no_secret(drive, home):
    ended = drive(home, "hydra/launcher=basic", "hydra/sweeper=basic", "model.case=0,2", SECRET)
    assert ended.code == 1
    assert statuses(home) == {0: "done", 2: "failed"}
    assert "sys.exit(3) was called" in ended.errors
    assert_in_words(ended)
    assert left_by_launcher(home) == set()
    assert_no_secret(home)


def test_launcher_that_is_not_there_is_told_before_anything_is_left_behind(drive, home):
    ended = drive(home, "hydra/launcher=submitit_slurm", "model.case=0,1", PATH=str(home))
    assert ended.code == 2
    assert "there is no SLURM here" in ended.errors
    assert_in_words(ended)
    assert not (home / "out").exists()


def test_what_a_launcher_cannot_do_is_told_all_together(command):
    ended = command("--multirun", "hydra/launcher=joblib", "trainer=ddp", "sweep.jobs=3", "seed=0,1")
    assert ended.code == 2
    assert "trainer=ddp: a job of a multirun is one process" in ended.errors[0]
    assert "sweep.jobs is for hydra/launcher=isolated" in ended.errors[1]


@pytest.mark.parametrize(("launcher", "extra"), [("joblib", "sweep"), ("submitit_local", "slurm")])
def test_launcher_that_is_not_installed_says_what_to_type(tmp_path, launcher, extra):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in ("cvtrain_grid.py", "cvtrain_isolated.py", "cvtrain_search.py"):
        (plugins / name).symlink_to(Path(cvtrain.__file__).parents[1] / "hydra_plugins" / name)
    program = f"import hydra_plugins; hydra_plugins.__path__ = [{str(plugins)!r}]; from cvtrain import cli; cli.main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "--multirun", f"hydra/launcher={launcher}", "seed=0,1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stderr == f"error: hydra/launcher={launcher} needs another package: pip install 'cvtrain[{extra}]'\n"
    assert not (tmp_path / "outputs").exists()


def test_ctrl_c_while_jobs_are_submitted_says_how_to_go_on(drive, home):
    with drive.start(home, *LOCAL, "model.case=7") as (pid, wait):
        wait_until((home / "wait0.met").exists)
        os.killpg(pid, signal.SIGINT)
        ended = wait()
        wait_until(lambda: no_process_below(home))
    assert ended.code == 128 + signal.SIGINT
    assert "cvtrain resume=out/sweeps/s" in ended.errors
    assert_in_words(ended)
    assert "Traceback" not in (home / "stderr0.txt").read_text()  # of submitit's own processes
