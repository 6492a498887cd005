"""The rules of settings: every YAML key has one, every rule is used, and each says what it wants."""

import math

import pytest
import yaml

from cvtrain import rules, schema
from cvtrain.config import config_dir
from cvtrain.help import GROUPS, options_of
from cvtrain.rules import Rule
from cvtrain.ruleset import RULES

NOT_SETTINGS = {"defaults", "hydra"}


def yaml_settings():
    """`(file, dotted key, default)` of everything that can be set."""
    root = config_dir()
    for path in sorted(root.rglob("*.yaml")):
        group = path.parent.name
        prefix = "" if group in ("configs", "task", "experiment") else f"{group}."
        prefix += f"{path.stem}." if group == "tracker" else ""  # several can be chosen: each has its own keys
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for key, default in schema.leaves({k: v for k, v in settings.items() if k not in NOT_SETTINGS}):
            if not str(default).startswith("${"):  # another setting's value, which obeys that one's rule
                yield path.relative_to(root), f"{prefix}{key}", default


SETTINGS = list(yaml_settings())


def test_every_rule_is_used_by_some_file():
    assert set(RULES) - {key for _, key, _ in SETTINGS} == set()


def test_every_null_has_a_rule_of_its_own():
    assert {key for _, key, default in SETTINGS if default is None} <= set(RULES)


def test_every_list_has_a_rule_of_its_own():
    assert {key for _, key, default in SETTINGS if isinstance(default, list)} <= set(RULES)


def test_numbers_without_a_range_are_none():
    bare = {
        key for _, key, default in SETTINGS if key not in RULES and rules.is_number(default) and default is not True
    }
    assert bare == set()


@pytest.mark.parametrize(("file", "key", "default"), SETTINGS, ids=[f"{f}:{k}" for f, k, _ in SETTINGS])
def test_every_default_obeys_its_rule(file, key, default):
    assert schema.rule_for(key, default).problem(default) is None


@pytest.mark.parametrize("key", sorted(RULES))
def test_no_rule_takes_a_wrong_type(key):
    rule = RULES[key]
    dictionary = {"a": 1}
    assert (rule.problem(dictionary) is None) == (rule is rules.DICTIONARY)
    assert rule.problem(object()) is not None
    assert rule.problem(math.nan) is not None
    assert rule.problem(True) is not None
    assert (rule.problem(None) is None) == rule.optional


def test_null_is_right_where_it_is_the_default():
    assert schema.rule_for("model.dropout", None).problem(None) is None
    assert schema.rule_for("model.dropout", 0.5).problem(None) is not None


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (rules.number(0, 1), [0, 1, 0.5], [-0.1, 1.1, math.inf, math.nan, True, "1", None]),
        (rules.number(above=0), [1e-9, 5], [0, -1, math.inf]),
        (rules.number(), [-5, 1e300], [math.inf, "x"]),
        (rules.fraction(), [0, 0.999], [1, -0.1]),
        (rules.integer(1, 3), [1, 3], [0, 4, 1.0, True]),
        (rules.integer(), [-5, 0], [0.5]),
        (rules.choice("a", "b"), ["a"], ["c", 1, ["a"], ""]),
        (rules.text(), ["x"], ["", 1]),
        (rules.sequence(rules.COUNT, words=""), [[], [1, 2], (3,)], [[0], "12", {1: 1}, 1]),
        (rules.sequence(rules.COUNT, words="", length=2), [[1, 2]], [[1], [1, 2, 3]]),
        (rules.either(rules.COUNT, rules.choice("auto")), [1, "auto"], [0, "x"]),
        (rules.optional(rules.COUNT), [None, 1], [0]),
        (rules.of_default(True), [False], [1, "true"]),
        (rules.of_default(3), [-1], [1.5]),
        (rules.of_default(0.5), [1], ["x"]),
        (rules.of_default("x"), ["y"], [1]),
        (rules.of_default({}), [{"a": 1}], [1]),
        (rules.of_default([]), [[1]], ["x"]),
        (rules.of_default(None), [None, 1, "x"], []),
    ],
)
def test_rule(rule: Rule, right, wrong):
    assert [value for value in right if rule.problem(value)] == []
    assert [value for value in wrong if not rule.problem(value)] == []


def test_rules_say_what_they_want():
    assert rules.number(0, 1).problem(2) == "must be a number from 0 to 1"
    assert rules.number(above=0, high=1).problem(2) == "must be a number > 0 and <= 1"
    assert rules.optional(rules.integer(0)).problem("x") == "must be a whole number >= 0 or null"
    assert rules.either(rules.choice("auto"), rules.COUNT).problem(0) == "must be auto or a whole number >= 1"


# ------------------------------------------------------------------------------------------------------ problems

REFERENCE = {
    "seed": 0,
    "model": {"_target_": "a.b", "kwargs": {}, "hidden": [1]},
    "trainer": {"epochs": 1, "steps": None},
}


def problems(**changes):
    return schema.problems_of({**REFERENCE, **changes}, REFERENCE)


def test_right_settings_have_no_problems():
    assert problems() == []
    assert problems(model={"_target_": "a.b", "kwargs": {"free": {"deep": 1}}, "hidden": []}) == []


def test_missing_unknown_and_wrong_settings_are_told_apart():
    assert problems(model={"_target_": "a.b", "kwargs": {}}) == ["model.hidden is missing, and needed"]
    assert problems(sed=1) == ["unknown key sed: did you mean seed?"]
    assert problems(model=3)[0].startswith("model=3: is no value but a group of keys: _target_, kwargs, hidden")
    assert problems(seed="1") == ["seed=1: must be a whole number from 0 to 4611686018427387904; leave out the quotes"]


def test_cross_checks_bear_any_shape_of_settings():
    for broken in (None, 3, "x", [], {"early_stopping": 3}, {"batch_size": "x", "accumulate": [1]}):
        for group in GROUPS:
            schema.cross_checks({group: broken})
            schema.idle_settings({group: broken}, ["trainer.early_stopping.min_epochs", "augment.crop_fill"])


def test_values_are_shown_as_they_are_typed():
    assert schema.shown([1, "a", None, True]) == "[1,a,null,true]"
    assert schema.shown({"a": 1.5}) == "{a:1.5}"
    assert len(schema.shown("x" * 99)) == 60


def test_every_group_has_options():
    for group in GROUPS:
        assert options_of(group, config_dir())


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"optimizer": {"lr": 100}}, "optimizer.lr=100"),
        ({"trainer": {"epochs": 10**8}}, "trainer.epochs=100000000"),
        ({"trainer": {"batch_size": 2**20}}, "trainer.batch_size=1048576"),
        ({"data": {"image_size": 1}}, "data.image_size=1"),
        ({"data": {"image_size": 8}, "augment": {"cutout": 16}}, "augment.cutout=16"),
    ],
)
def test_values_that_are_hardly_meant_are_named_once(settings, key):
    (line,) = schema.oddities(settings)
    assert line.startswith(f"{key}: ")


def test_defaults_are_meant():
    assert [line for _, key, default in SETTINGS for line in schema.oddities(nested(key, default))] == []
    assert schema.oddities({"optimizer": None, "trainer": {"epochs": "x"}}) == []


def nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return value
