import random

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from search_for_tests import parsed

from cvtrain.errors import ConfigError
from cvtrain.search.parameters import draw, word_of


def parameter(word):
    (found,) = parsed(word).parameters
    return found


@pytest.mark.parametrize(
    ("word", "distribution"),
    [
        ("optimizer=sgd,adam", CategoricalDistribution(("sgd", "adam"))),
        ("optimizer=choice(sgd,adam,sgd)", CategoricalDistribution(("sgd", "adam"))),
        ("a=0.1,1e-3,null,true", CategoricalDistribution(("0.1", "0.001", "null", "True"))),
        ("a=[1,2],[3]", CategoricalDistribution(("[1,2]", "[3]"))),
        ("a='x y','z'", CategoricalDistribution(("'x y'", "'z'"))),
        ("a=range(4)", IntDistribution(0, 3)),
        ("a=range(2,11,4)", IntDistribution(2, 10, step=4)),
        ("a=range(10,0,-5)", IntDistribution(5, 10, step=5)),
        ("a=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("a=range(0,1,0.1)", FloatDistribution(0.0, 0.9, step=0.1)),
        ("a=range(0.5,2)", FloatDistribution(0.5, 1.5, step=1.0)),
        ("a=interval(0,1)", FloatDistribution(0.0, 1.0)),
        ("a=interval(-1e-3,2)", FloatDistribution(-1e-3, 2.0)),
        ("a=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("a=int(interval(16,512))", IntDistribution(16, 512)),
        ("a=tag(int,interval(16,512))", IntDistribution(16, 512)),
        ("a=tag(int,log,interval(16,512))", IntDistribution(16, 512, log=True)),
        ("a=tag(log,int(interval(16,512)))", IntDistribution(16, 512, log=True)),
        ("++a=sort(3,1,2)", CategoricalDistribution(("1", "2", "3"))),
    ],
)
def test_words_of_hydra_become_what_optuna_searches(word, distribution):
    assert parameter(word).distribution() == distribution


@pytest.mark.parametrize(
    "word",
    [
        "a=x,y",
        "a=range(0,2,0.1)",
        "a=range(10,0,-3)",
        "a=interval(0,1)",
        "a=interval(1000,1001)",
        "a=interval(-5,1e20)",
        "a=tag(log,interval(1e-9,1e9))",
        "a=tag(log,interval(0.0123456789,0.0123456999))",
        "a=tag(log,int(interval(3,900)))",
        "a=int(interval(-4,4))",
    ],
)
def test_every_value_comes_back_from_its_word_and_lies_in_the_space(word):
    searched, rng = parameter(word), random.Random(0)
    for _ in range(200):
        value = draw(searched, rng)
        assert searched.holds(value)
        read = OverridesParser.create().parse_override(f"a={word_of(value)}").value()
        assert read == value
        assert type(read) is type(value)


def test_values_are_short_and_as_fine_as_their_interval():
    rng = random.Random(0)
    lrs = [word_of(draw(parameter("a=tag(log,interval(1e-4,1e-1))"), rng)) for _ in range(100)]
    assert max(len(lr.lstrip("0.")) for lr in lrs) == 4
    near = {draw(parameter("a=interval(1000,1001)"), rng) for _ in range(100)}
    assert len(near) > 80
    assert parameter("a=interval(0,0.12349)").rounded(0.123489) == 0.12349, "rounding does not lead out of it"


def test_words_are_typed_again_in_their_order_with_what_is_fixed():
    space = parsed("model=mlp", "++optimizer.lr=interval(0,1)", "~a", "optimizer=sgd,adam", "++b={x:1}")
    words = space.words({"optimizer.lr": 0.25, "optimizer": "adam"})
    assert words == ("model=mlp", "++optimizer.lr=0.25", "~a", "optimizer=adam", "++b={x:1}")
    plain = tuple(word.lstrip("+") for word in words)
    assert space.key_of(words) == space.key_of(plain) == ("optimizer=adam", "optimizer.lr=0.25")


def test_last_word_of_a_key_counts():
    space = parsed("optimizer=sgd,adam", "seed=1", "optimizer.lr=1,2", "optimizer=sgd")
    assert [each.key for each in space.parameters] == ["optimizer.lr"]
    assert parsed("a=1", "a=interval(0,1)").parameters == (parameter("a=interval(0,1)"),)


def test_a_space_has_one_name_however_it_is_typed():
    names = {
        parsed("a=tag(log,interval(1e-4,0.1))", "b=x,y").name(),
        parsed("++b=choice(x,y)", "++a=tag(log,interval(0.0001,1e-1))", "model=mlp").name(),
    }
    assert len(names) == 1
    assert parsed("a=tag(log,interval(1e-4,0.2))", "b=x,y").name() not in names
    assert parsed("a=interval(1e-4,0.1)", "b=x,y").name() not in names


def test_combinations_are_counted_and_drawn_until_none_is_left():
    space, tried = parsed("a=x,y", "b=range(3)", "c=int(interval(1,2))"), set()
    assert space.num_combinations == 12
    rng = random.Random(0)
    while (found := space.untried(tried, rng)) is not None:
        assert space.holds(found)
        tried.add(space.key(found))
    assert len(tried) == 12
    assert parsed("a=x,y", "b=interval(0,1)").num_combinations is None


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("a=range(5,5)", "the range is empty"),
        ("a=range(0,5,-1)", "the range is empty"),
        ("a=range(0,1,0)", "step other than 0"),
        ("a=interval(2,1)", "the interval is empty: 2 is not below 1"),
        ("a=interval(1,1)", "the interval is empty: 1 is not below 1"),
        ("a=interval(0,inf)", "two finite ends"),
        ("a=interval(nan,1)", "two finite ends"),
        ("a=tag(log,interval(0,1))", "the logarithm of 0 does not exist: the lower end must be above 0"),
        ("a=tag(log,interval(-1,1))", "the logarithm of -1 does not exist"),
        ("a=tag(log,range(0,5))", "the logarithm of 0 does not exist"),
        ("a=tag(log,range(1,9,2))", "steps of one size"),
        ("a=tag(log,range(0.1,1,0.1))", "steps of one size"),
        ("a=tag(int,range(0.1,1,0.1))", "tag int is for interval"),
        ("a=tag(int,interval(0.5,3))", "whole ends"),
        ("a=tag(lg,interval(1,2))", "unknown tag lg: there are log and int"),
        ("a=tag(log,choice(1,10))", "the tag log is for interval"),
        ("a=shuffle(range(5))", "leave shuffle"),
        ("a=shuffle(x,y)", "leave shuffle"),
        ("model=glob(*)", "list the options"),
        ("seed=1,2,3", "the luckiest seed"),
        ("data.seed=range(3)", "the luckiest seed"),
        ("name=a,b", "changes no result"),
        ("sweep.jobs=1,2", "changes no result"),
        ("data.token=abc,def", "a secret is not searched"),
        ("data.url='http://me:abc@x','http://y'", "a secret is not searched"),
    ],
)
def test_what_cannot_be_searched_is_said_in_words(word, problem):
    with pytest.raises(ConfigError) as raised:
        parsed(word, "b=1,2")
    (line,) = raised.value.lines()
    assert problem in line
    assert line.startswith(word.partition("=")[0])


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as raised:
        parsed("a=range(5,5)", "b=tag(log,interval(0,1))", "model=glob(*)", "c=1,2")
    assert len(raised.value.problems) == 3


def test_nothing_to_search_is_told_with_an_example():
    with pytest.raises(ConfigError, match=r"nothing to search.*optimizer\.lr='tag\(log,interval\("):
        parsed("model=mlp", "seed=3")
