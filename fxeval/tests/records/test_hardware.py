"""Which runs are of one hardware class."""

import pytest

from fxeval.records.hardware import hardware_class
from fxeval.records.subjects import Environment

CPU = Environment(
    fxeval="0.1.0", python="3.11.7", torch="2.13.0+cpu", numpy="2.4.0", opencv="5.0.0",
    pytest="9.2.0", platform="Linux x86_64", device="cpu", threads=2, precision="float32",
    batch_size=16, commit="a" * 40, dirty=False, capability="AVX512",
)  # fmt: skip
GPU = CPU.model_copy(update={"device": "cuda", "gpu": "NVIDIA H200", "cuda": "13.0"})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (CPU, "Linux x86_64, AVX512, torch 2.13, float32"),
        (GPU, "NVIDIA H200, CUDA 13, torch 2.13, float32"),
        (CPU.model_copy(update={"capability": None}), "Linux x86_64, torch 2.13, float32"),
        (CPU.model_copy(update={"torch": None}), "Linux x86_64, AVX512, float32"),
    ],
)
def test_a_class_names_what_moves_values(environment, words):
    assert hardware_class(environment) == words


@pytest.mark.parametrize(
    "change", [{"threads": 8}, {"batch_size": 64}, {"commit": None}, {"torch": "2.13.1"}]
)
def test_what_moves_the_last_digits_alone_is_of_the_same_class(change):
    assert hardware_class(CPU.model_copy(update=change)) == hardware_class(CPU)


@pytest.mark.parametrize(
    "change",
    [{"capability": "AVX2"}, {"platform": "Linux aarch64"}, {"torch": "2.14.0"},
     {"precision": "bfloat16"}],
)  # fmt: skip
def test_another_kernel_or_release_is_another_class(change):
    assert hardware_class(CPU.model_copy(update=change)) != hardware_class(CPU)
