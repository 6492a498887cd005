import pytest
import torch
from torch import nn

from cvtrain.engine.device import (
    Compute,
    choose_device,
    choose_precision,
    cpu_multiplies_bf16,
    device_problem,
    is_out_of_memory,
    memory_limit,
    set_determinism,
)
from cvtrain.errors import ConfigError, MemoryLimitError

CPU = torch.device("cpu")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_cpu_and_auto_can_always_be_chosen():
    assert device_problem("cpu") is None
    assert device_problem("auto") is None
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@needs_no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_missing_gpu_says_what_there_is(name):
    with pytest.raises(ConfigError, match=rf"trainer\.device={name}: no CUDA device here; there is cpu") as caught:
        choose_device(name)
    assert "trainer.device=auto" in caught.value.message


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_missing_apple_gpu_says_what_there_is():
    with pytest.raises(ConfigError, match="no Apple GPU here"):
        choose_device("mps")


def test_precision_of_matrices_alone_is_full_and_named_ones_are_kept():
    matrices, filters = nn.Linear(2, 2), nn.Sequential(nn.Conv2d(1, 1, 1))
    assert choose_precision("auto", CPU, matrices) == "fp32"
    assert choose_precision("auto", CPU, filters) == ("bf16" if cpu_multiplies_bf16() else "fp32")
    assert choose_precision("bf16", CPU, matrices) == "bf16"
    assert choose_precision("fp32", CPU, filters) == "fp32"
    with pytest.raises(ConfigError, match=r"trainer\.precision=fp16 needs a GPU"):
        choose_precision("fp16", CPU, filters)


def test_model_is_placed_in_the_chosen_memory_order():
    for channels_last in (True, False):
        model = Compute(CPU, channels_last=channels_last).place(nn.Conv2d(3, 8, 3))
        assert model.weight.is_contiguous(memory_format=torch.channels_last) is channels_last


def test_autocast_sets_the_number_format_of_products():
    layer, images = nn.Linear(4, 4), torch.randn(2, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with Compute(CPU, precision).autocast():
            assert layer(images).dtype == dtype


def test_name_says_how_many_threads():
    assert Compute(CPU).name == f"cpu ({torch.get_num_threads()} threads)"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("memory of elephants"), False),
    ],
)
def test_lack_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected


def test_real_lack_of_memory_becomes_words():
    with pytest.raises(MemoryLimitError, match="no room") as caught, memory_limit("no room", hint="less"):
        torch.empty(2**60)
    assert caught.value.exit_code == 6
    assert caught.value.hint == "less"
    with pytest.raises(RuntimeError, match="other"), memory_limit("no room", hint="less"):
        raise RuntimeError("other")


def test_determinism_can_be_switched_on_and_off():
    try:
        set_determinism(True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        set_determinism(False)
    assert not torch.are_deterministic_algorithms_enabled()
