"""The folder of configs that a user brings, as Hydra reads it, and the variables of the environment that configs read.

Such a folder may come from anywhere. Knows Hydra's ways to extend it; not which settings are right.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from cvtrain import schema
from cvtrain.config_file import read_config_text, shown_path
from cvtrain.errors import ConfigError
from cvtrain.suggestions import no_environment

_ENVIRONMENT = {
    *("HOME", "USER", "LOGNAME", "HOSTNAME", "PWD", "TMPDIR", "SCRATCH", "XDG_CACHE_HOME", "XDG_DATA_HOME"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_TMPDIR", "SLURM_ARRAY_TASK_ID"),
}
"""Variables that a config may read, beside those that begin with CVTRAIN_: names, folders and counts. Others hold
secrets, and what a config reads is written into run folders."""


@functools.cache
def _search_path() -> Any:
    """Hydra's way to learn of a further folder of configs, root configs among them."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class UserConfigs(SearchPathPlugin):
        folders: ClassVar[list[Path]] = []

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in self.folders:
                search_path.append("user", f"user://{folder}")

    return UserConfigs


@functools.cache
def _config_source() -> Any:
    """Hydra's way to read such a folder: what it holds may come from anywhere, and is looked through first."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra.plugins.config_source import ConfigResult, ConfigSource
    from omegaconf import OmegaConf

    class UserConfigSource(FileConfigSource):
        @staticmethod
        def scheme() -> str:
            return "user"

        def load_config(self, config_path: str) -> ConfigResult:
            path = Path(self.path) / self._normalize_file_name(config_path)
            text = read_config_text(path)
            try:
                config, header = OmegaConf.load(io.StringIO(text)), ConfigSource._get_header_dict(text)
            except Exception as error:  # of YAML, of OmegaConf, of Hydra
                raise ConfigError(f"{shown_path(path)}: {in_short(error)}") from None
            if config_path.startswith(("experiment/", "task/")) and header["package"] is None:
                raise ConfigError(f"{shown_path(path)}: its first line has to be: # @package _global_")
            _refuse_reaching_out(config_path, config, name=shown_path(path))
            return ConfigResult(config=config, path=f"user://{self.path}", provider=self.provider, header=header)

    return UserConfigSource


def _refuse_reaching_out(config_path: str, config: Any, *, name: str) -> None:
    """Refuses a file that would have others read from elsewhere, or stands where Hydra's own parts are looked for.

    Raises:
        ConfigError: It does.
    """
    from omegaconf import OmegaConf

    if config_path.startswith("hydra/"):
        raise ConfigError(f"{name}: a folder of yours holds no options of Hydra's own; type hydra.launcher.KEY=VALUE")
    plain = OmegaConf.to_container(config, resolve=False)
    hydras = plain.get("hydra")
    if isinstance(hydras, dict) and "searchpath" in hydras:
        raise ConfigError(f"{name}: hydra.searchpath is not for files; type --config-dir FOLDER")
    if isinstance(hydras, dict) and isinstance(hydras.get("job"), dict) and "env_copy" in hydras["job"]:
        raise ConfigError(f"{name}: hydra.job.env_copy is not for files")
    outside = [word for word in words_in(plain.get("defaults")) if ".." in word or "://" in word]
    if outside:
        raise ConfigError(f"{name}: defaults: {schema.shown(outside[0])} is no option of a group")


def words_in(node: Any) -> list[str]:
    """All keys and values of nested containers, as words."""
    if isinstance(node, dict):
        return [word for key, value in node.items() for word in (str(key), *words_in(value))]
    return [word for each in node for word in words_in(each)] if isinstance(node, list) else [str(node)]


def in_short(error: BaseException) -> str:
    """The words of Hydra, OmegaConf or PyYAML in one line, without what is of use to programmers alone."""
    while error.__cause__ is not None and (not str(error).strip() or getattr(error.__cause__, "full_key", None)):
        error = error.__cause__
    message = str(error).strip() or type(error).__name__
    key = re.search(r"full_key: (\S+)", message)
    where = getattr(error, "problem_mark", None)
    words = " ".join((getattr(error, "problem", None) or message).split())
    for tail in ("Available options", "Config search path", "To append to your", "full_key:", "Did you mean"):
        words = words.split(tail)[0].rstrip()
    place = f"line {where.line + 1}, column {where.column + 1}: " if where else f"{key[1]}: " if key else ""
    return f"{place}{words[:300]}"


def read_environment(name: Any, *default: Any) -> Any:
    """`${oc.env:NAME,DEFAULT}`, for the variables that a config may read."""
    if name not in _ENVIRONMENT and not str(name).startswith("CVTRAIN_"):
        raise KeyError(no_environment(str(name)))
    if name not in os.environ and not default:
        raise KeyError(f"Environment variable '{name}' not found")
    return os.environ.get(name, *default)


@contextlib.contextmanager
def known_to_hydra(folders: list[Path]) -> Iterator[None]:
    """Lets Hydra find configs in the user's folders, and read no other variables, where it is set up within."""
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf

    search_path = _search_path()
    Plugins.instance().register(search_path)
    SourcesRegistry.instance().register(_config_source())
    OmegaConf.register_new_resolver("oc.env", read_environment, replace=True)
    search_path.folders = folders
    try:
        yield
    finally:
        search_path.folders = []
