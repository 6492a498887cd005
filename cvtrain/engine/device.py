"""Where and how precisely to compute: device, number format, memory order, determinism.

Knows the machine, not the model's purpose nor the data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cvtrain.errors import ConfigError, MemoryLimitError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device_problem(name: str) -> str | None:
    """What keeps `name` (`auto`, `cpu`, `cuda`, `cuda:N`, `mps`) from being used here, or None."""
    kind, _, index = name.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            return f"trainer.device={name}: no CUDA device here; there is {_present()}: type trainer.device=auto"
        if index and int(index) >= count:
            return f"trainer.device={name}: there are {count} CUDA devices, cuda:0 to cuda:{count - 1}"
    if kind == "mps" and not torch.backends.mps.is_available():
        return f"trainer.device=mps: no Apple GPU here; there is {_present()}: type trainer.device=auto"
    return None


def _present() -> str:
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join(found)


def shared_device_problem(name: str, *, num_local: int) -> str | None:
    """What keeps `num_local` processes of this machine from using `name` together, or None."""
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name.startswith("cuda:"):
        return f"trainer.device={name}: each process takes a GPU of its own: type trainer.device=cuda"
    if name == "mps":
        return "trainer.device=mps: an Apple GPU serves one process: type trainer.device=cpu"
    if name in ("auto", "cuda") and 0 < num_gpus < num_local:
        return (
            f"{num_local} processes were started on this machine, which has {num_gpus} CUDA devices:"
            f" start {num_gpus}, or type trainer.device=cpu"
        )
    return None


def choose_device(name: str, *, local_number: int | None = None) -> torch.device:
    """The device for a name; `auto` takes a CUDA device, else an Apple GPU, else the CPU.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        local_number: Of this process among several on this machine, each of which takes a CUDA device of its own or
            the CPU; None where there is one.

    Raises:
        ConfigError: The device is not present.
    """
    problem = device_problem(name)
    if problem:
        raise ConfigError(problem)
    if local_number is not None and name in ("auto", "cuda"):
        return torch.device("cuda", local_number) if torch.cuda.is_available() else torch.device("cpu")
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16 products (elsewhere bf16 is slower than fp32)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def choose_precision(name: str, device: torch.device, model: nn.Module) -> str:
    """The number format of products, `fp32`, `bf16` or `fp16`; weights and losses are always float32.

    Args:
        name: `auto` or one of the three. `auto` takes bf16 where the device multiplies it natively and the model
            convolves: small matrix-only models gain nothing.
        device: Where the model will run.
        model: The model; only the kinds of its layers are looked at.

    Raises:
        ConfigError: fp16 on a CPU, where sums would overflow without a loss scaler that pays.
    """
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("trainer.precision=fp16 needs a GPU: type trainer.precision=bf16 or auto")
    if name != "auto":
        return name
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and cpu_multiplies_bf16()
    return "bf16" if native and convolves else "fp32"


@dataclass(frozen=True)
class Compute:
    """Device and number format of a run.

    Args:
        device: Where tensors live.
        precision: `fp32`, `bf16` or `fp16`.
        channels_last: Whether images and filters lie channels-last in memory.
    """

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = True

    def autocast(self) -> AbstractContextManager:
        """The context in which a forward pass runs."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])

    def place(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device, filters in the chosen memory order."""
        model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    @property
    def name(self) -> str:
        """The device in words, for the run card."""
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        return f"cpu ({torch.get_num_threads()} threads)" if self.device.type == "cpu" else str(self.device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device, or the machine, had no room."""
    text = str(error).lower()
    words = ("out of memory", "can't allocate memory", "cannot allocate memory", "status_alloc_failed", "bad_alloc")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(w in text for w in words)


@contextmanager
def memory_limit(message: str, *, hint: str) -> Iterator[None]:
    """Turns a lack of memory inside the block into words.

    Raises:
        MemoryLimitError: With the message and the hint.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryLimitError(message, hint=hint) from error


def set_determinism(deterministic: bool) -> None:
    """Makes torch refuse operations without a deterministic form, or allows them again."""
    import os

    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
