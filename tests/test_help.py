"""The help page: complete, true, and quick because it loads next to nothing."""

import re

from cvtrain.config import config_dir
from cvtrain.help import GROUPS, help_text, options_of, options_with
from cvtrain.rules import is_number


def test_every_group_and_every_option_is_listed():
    page = help_text(config_dir())
    folders = {path.name for path in config_dir().iterdir() if path.is_dir()}
    assert folders == set(GROUPS)
    for group in GROUPS:
        lines = page.partition(f"  {group}=")[2]
        for option in options_of(group, config_dir()):
            assert re.search(rf"\b{re.escape(option)}\b", lines), (group, option)


def test_page_has_eight_examples_flags_exit_codes_and_fits_a_terminal():
    page = help_text(config_dir())
    examples = page.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 8
    assert all(line.startswith("  cvtrain") for line in examples)
    for word in ("--version", "--cfg job", "--multirun", "--config-dir", "README", "128+N", str(config_dir())):
        assert word in page
    assert max(map(len, page.splitlines())) <= 120


def test_examples_compose(tmp_path):
    from cvtrain.compose import compose
    from cvtrain.multirun import Multirun

    examples = help_text(config_dir()).partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    composed = 0
    for line in examples:
        words = re.split(r"\s{2,}|\s+(?=[a-z]+ ?[a-z]* ?:)", line.strip())[0].split()[1:]
        is_multirun, words = "--multirun" in words, [word for word in words if "=" in word]
        if not any("<run>" in word for word in words):
            Multirun(words) if is_multirun else compose(words)
            composed += 1
    assert composed == 6


def test_options_are_in_natural_order_and_take_in_the_users(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# mine\n")
    options = options_of("model", config_dir(), tmp_path)
    assert "mine" in options
    assert options.index("vgg11_bn") == options.index("vgg11") + 1
    assert options.index("resnet50") > options.index("resnet18")


def test_options_with_a_key_are_found():
    assert options_with(config_dir(), "split") == ["task=evaluate"]
    assert options_with(config_dir(), "model.stem") == ["model=resnet18", "model=resnet34", "model=resnet50"]
    assert options_with(config_dir(), "nothing.at_all") == []


def test_exit_codes_on_the_page_are_those_of_the_errors():
    from cvtrain import errors

    page = help_text(config_dir())
    codes = {int(code) for code in re.findall(r"\b(\d) ", page.partition("Exit codes: ")[2].partition("128+N")[0])}
    known = {error.exit_code for error in vars(errors).values() if is_number(getattr(error, "exit_code", None))}
    assert codes == {0} | known
