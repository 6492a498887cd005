"""The rules of the inside, read from the source: who may import whom, who may print, how long things may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "cvtrain"

LEAVES = {"data", "models", "engine", "losses", "optimizers", "muon", "schedulers", "analysis"}
"""Know torch, but neither the config nor each other."""

RANKS = [
    {"errors"},
    {
        "rules",
        "suggestions",
        "config_file",
        "hydra_settings",
        "plain_text",
        "seeding",
        "signals",
        "folders",
        "arguments",
        "help",
        "job_estimate",
        "job_rows",
    },
    {"ruleset"},
    {"schema"},
    LEAVES,
    {"config", "launch", "last_words", "prepared", "targets", "outputs", "report", "results", "sweeps", "trackers"},
    {"console", "evaluation_rows", "progress_bar", "job_lines", "place", "record", "ending", "safekeeping", "finding"},
    {"build", "resume", "together", "workers", "isolation"},
    {
        "check",
        "rehearsal",
        "watch",
        "step_log",
        "parts",
        "fit",
        "classifier",
        "init_from",
        "saved_model",
        "sample_size",
        "tracking",
        "export",
    },
    {"pages"},
    {"origins", "user_configs"},
    {"comparison_lines", "train_lines", "drawings", "inheritance", "composer", "tasks"},
    {"compose"},
    {"jobs"},
    {"search"},
    {"multirun", "sweep_again"},
    {"cli"},
    {"__init__", "__main__"},
]
"""Each may import those above it, and what stands beside it where that makes no circle."""

KNOW_HYDRA = {"composer", "compose", "user_configs", "multirun", "jobs.grid", "jobs.job"}
MAY_PRINT = {"console", "job_lines", "cli"}
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 320, 60


SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}


def part_of(module: str) -> str:
    return module.split(".")[0]


def imports_of(name: str, *, at_top_only: bool = False) -> set[str]:
    """Dotted names of all that a module imports; of our own modules without `cvtrain.`."""
    tree = TREES[name]
    nodes = tree.body if at_top_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(name: str) -> set[str]:
    own = {i.removeprefix("cvtrain.") for i in imports_of(name) if i.startswith("cvtrain.")}
    return {i if i in TREES else i.rpartition(".")[0] or i for i in own}


def rank_of(part: str) -> int:
    return next(rank for rank, parts in enumerate(RANKS) if part in parts)


def test_every_module_has_a_rank():
    assert {part_of(name) for name in SOURCES} == set().union(*RANKS)


@pytest.mark.parametrize("name", SOURCES)
def test_modules_import_lower_ranks_only(name):
    part = part_of(name)
    for imported in sorted({part_of(i) for i in own_imports(name)} - {part}):
        assert rank_of(imported) <= rank_of(part), f"{name} imports {imported}"


def test_parts_import_each_other_in_no_circle():
    graph: dict[str, set[str]] = {}
    for name in SOURCES:
        graph.setdefault(part_of(name), set()).update({part_of(i) for i in own_imports(name)} - {part_of(name)})
    done: set[str] = set()

    def visit(part: str, above: tuple[str, ...]) -> None:
        assert part not in above, " -> ".join([*above, part])
        if part not in done:
            for imported in graph[part]:
                visit(imported, (*above, part))
            done.add(part)

    for part in graph:
        visit(part, ())


@pytest.mark.parametrize("name", [name for name in SOURCES if part_of(name) in LEAVES])
def test_leaves_know_nothing_but_errors_seeds_and_themselves(name):
    part = part_of(name)
    assert {part_of(i) for i in own_imports(name)} <= {part, "errors", "seeding"}
    foreign = {i.split(".")[0] for i in imports_of(name)}
    assert not foreign & {"hydra", "omegaconf", "rich", "tqdm", "argparse"}
    at_top = {i.split(".")[0] for i in imports_of(name, at_top_only=True)}
    assert not at_top & {"torchvision", "timm", "scipy", "matplotlib"}


def test_config_modules_know_no_torch():
    for name in (
        "errors",
        "rules",
        "ruleset",
        "suggestions",
        "arguments",
        "help",
        "schema",
        "config",
        "targets",
        "compose",
        "cli",
    ):
        at_top = {i.split(".")[0] for i in imports_of(name, at_top_only=True)}
        assert not at_top & {"torch", "numpy", "hydra", "omegaconf", "rich", "PIL"}, name
    assert {part_of(i) for i in own_imports("schema")} <= {"errors", "rules", "ruleset", "suggestions"}


def test_hydra_is_known_at_the_edge_alone():
    knowing = {name for name in SOURCES if {i.split(".")[0] for i in imports_of(name)} & {"hydra", "omegaconf"}}
    assert knowing == KNOW_HYDRA


def test_no_task_imports_a_task():
    for name in SOURCES:
        if part_of(name) == "tasks":
            assert not {i for i in own_imports(name) if part_of(i) == "tasks"} - {name}, name


def calls(tree: ast.AST):
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_console_prints(name):
    if name in MAY_PRINT:
        return
    for call in calls(TREES[name]):
        assert not (isinstance(call.func, ast.Name) and call.func.id in ("print", "input", "breakpoint")), name
        written = ast.unparse(call.func)
        assert not written.startswith(("sys.stdout.", "sys.stderr.", "rich.")), f"{name}: {written}"


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_runs_what_it_reads(name):
    for call in calls(TREES[name]):
        written = ast.unparse(call.func)
        keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert keywords.get("weights_only", "True") == "True", name
        assert keywords.get("allow_pickle", "False") == "False", name
        assert keywords.get("shell", "False") == "False", name
        assert written not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load"), (
            name
        )
        assert written not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "tarfile.open"), name
        if written == "torch.load":
            assert keywords.get("weights_only") == "True", name
        if written == "yaml.load":
            assert "Loader" in keywords, name
    assert ".extractall(" not in SOURCES[name]


@pytest.mark.parametrize("name", SOURCES)
def test_modules_and_functions_are_short(name):
    lines = len(SOURCES[name].splitlines())
    assert lines <= MAX_MODULE_LINES, f"{name}: {lines} lines"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{name}.{node.name}: {length} lines"


@pytest.mark.parametrize("name", SOURCES)
def test_modules_say_what_they_hold(name):
    docstring = ast.get_docstring(TREES[name])
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":")), docstring.splitlines()[0]


def test_no_catch_all_names():
    for name in SOURCES:
        assert name.rpartition(".")[2] not in ("utils", "helpers", "common", "misc", "util"), name
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.ClassDef):
                assert not node.name.endswith(("Manager", "Handler")), node.name
                assert not node.name.startswith("Base"), node.name


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_left_to_do(name):
    for word in ("TODO", "FIXME", "XXX"):
        assert word not in SOURCES[name]
