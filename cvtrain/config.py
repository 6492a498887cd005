"""The settings of a run as plain dictionaries: found, read back, written, masked, hashed.

Knows neither Hydra nor torch; `compose.py` makes settings from a command line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvtrain.config_file import read_config_text
from cvtrain.errors import CheckpointError, ConfigError
from cvtrain.schema import look_up
from cvtrain.suggestions import nearest

Config = dict[str, Any]
"""Every key of every chosen group, and under `choices` which option each group has."""

RUN_ONLY_KEYS = ("name", "output_dir", "resume", "plugins", "typed", "sweep", "tracker")
"""Keys that say how a command is run and change no result: left out of the hash of a config."""

RESUME_MAY_CHANGE = (
    "trainer.epochs",
    "trainer.steps",
    "trainer.device",
    "trainer.deterministic",
    "trainer.distributed",
    "trainer.eval_batch_size",
    "trainer.on_not_learning",
    "trainer.log_every",
    "trainer.early_stopping.patience",
    "trainer.checkpoint.every_minutes",
    "trainer.checkpoint.keep",
    "data.root",
    "data.loader",
    "data.num_workers",
    "data.cache_dir",
    "data.memory_limit_gb",
    "data.download",
    "data.mirror",
    "plugins",
    "sizes",
    "replicates",
    "on_short",
    "target",
    "elbow",
    "validate",
    "sweep.jobs",
)
"""What a command that resumes may set anew: length, place and speed, but nothing that defines the run."""

TRAINED_GROUPS = ("data", "augment", "model", "loss", "optimizer", "scheduler", "trainer")
"""The groups whose settings a trained model brings along."""

_OPTION = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*|\[\w[\w.-]*(,\w[\w.-]*)*\]")
_SECRET = re.compile(r"(^|[._-])(api_?key|token|secret|passw(or)?d|credentials?)($|[._-])", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]+):([^/\s@]+)(?=@)")


def config_dir() -> Path:
    """The folder of configs: inside the package in a wheel, beside it in a checkout.

    Raises:
        ConfigError: Neither exists, so the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError("the configs of cvtrain are not where they belong", hint="reinstall cvtrain")


def user_config_dir(given: str | None) -> Path | None:
    """The folder of the user's own configs, if one was named.

    Raises:
        ConfigError: It does not exist.
    """
    if given is None:
        return None
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {given}: there is no such folder")
    return folder


def check_root_config(name: str, folders: Sequence[Path]) -> None:
    """Refuses the name of a root config that is in none of the folders.

    Raises:
        ConfigError: With the nearest name.
    """
    if any((folder / f"{name}.yaml").is_file() for folder in folders):
        return
    match = nearest(name, [path.stem for folder in folders for path in folder.glob("*.yaml")])
    meant = f": did you mean --config-name {match}?" if match else f": there is no {name}.yaml in {folders[-1]}"
    raise ConfigError(f"--config-name {name}{meant}", hint="--config-dir DIR names the folder of your own configs")


def load_config(run: Path) -> Config:
    """The settings of a run folder, as they were saved.

    Raises:
        CheckpointError: The folder does not exist or holds no run.
    """
    import yaml

    path = Path(run).expanduser() / "config.yaml"
    try:
        if not path.exists():
            raise CheckpointError(
                f"{run} holds no run: there is no {path}", hint="resume= takes a folder such as outputs/train/.../<run>"
            )
        config = yaml.load(read_config_text(path), Loader=_yaml_loader())
    except ConfigError as error:
        raise CheckpointError(error.message) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}".splitlines()[0]) from None
    if not isinstance(config, dict) or not are_choices(config.get("choices")):
        raise CheckpointError(f"{path} is not the config of a run")
    if "experiment" not in config["choices"]:  # what a config ends with
        raise CheckpointError(f"{path} is cut short")
    return config


def are_choices(value: Any) -> bool:
    """Whether a value says which option each group has; options name folders, and must not lead out of them."""
    names = value.values() if isinstance(value, dict) else [0]
    return all(name is None or (isinstance(name, str) and _OPTION.fullmatch(name)) for name in names)


def _yaml_loader() -> type:
    """PyYAML's safe loader, with `1e-3` read as the number it is (YAML 1.2), as OmegaConf does."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )
    return Loader


def save_text(config: Mapping[str, Any]) -> str:
    """The settings as YAML, with secrets masked."""
    import yaml

    kept = {k: v for k, v in masked(config).items() if k not in ("resume", "typed")}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def masked(settings: Any, key: str = "") -> Any:
    """A copy in which passwords, tokens and keys are replaced by `***`."""
    if isinstance(settings, Mapping):
        return {k: masked(v, str(k)) for k, v in settings.items()}
    if isinstance(settings, list | tuple):
        return [masked(v, key) for v in settings]
    if isinstance(settings, str):
        return "***" if _SECRET.search(key) else _URL_PASSWORD.sub("***", settings)
    return settings


def typed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, as a run card keeps it: by key, or the option by group; secrets masked.

    What names the folder of a run, or a run to go on with, is no part of it.
    """
    kept = [key for key in config.get("typed", ()) if key not in ("name", "output_dir", "resume", "task")]
    choices = config.get("choices", {})
    found = {key: (True, choices[key]) if key in choices else look_up(config, key) for key in kept}
    return {key: masked(value, key) for key, (is_there, value) in found.items() if is_there and "sweep." not in key}


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the settings that define a result: where and how it is run does not matter."""
    defining = {k: v for k, v in config.items() if k not in RUN_ONLY_KEYS}
    # Which experiment values come from does not matter either, nor who is told of them.
    if not defining.get("trainer", {}).get("distributed", True):  # the same as before there was such a key
        defining["trainer"] = {k: v for k, v in defining["trainer"].items() if k != "distributed"}
    choices = config.get("choices", {})
    defining["choices"] = {k: v for k, v in choices.items() if k not in ("experiment", "tracker")}
    return hashlib.sha256(json.dumps(_canonical(defining), sort_keys=True, default=str).encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """The same for 1 and 1.0: what is typed as either is the same setting."""
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
