"""The code that torch's compiler generates for a card, counted without one: `pretended_cuda` says how.

A decoded token costs one launch per kernel and one reading of each weight. The counts are those of torch 2.13; the
review of generated code that they stand for is worth doing again for each newer torch.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith("2.13"), reason="the kernels are counted for torch 2.13"
)
MATRICES = 7  # wq, wk, wv, wo, w_gate, w_up, w_down
SMALLEST = 1024 * 4096  # numbers of wk and wv, the smallest matrices of a block
KERNEL = re.compile(r"^ +(triton_\w+)\.run\(", re.MULTILINE)
LIBRARY = re.compile(r"^ +(?:buf\d+ = )?((?:extern_kernels|torch\.ops)\.[\w.]+)\(", re.MULTILINE)
ALLOCATION = re.compile(r"empty_strided_cuda\(\((\d[\d, ]*)\)")


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    program = Path(__file__).with_name("pretended_cuda.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def pointers(code: str, kind: str) -> int:
    """How often kernels are given a pointer to numbers of that kind."""
    return sum(signature.count(f"'*{kind}'") for signature in re.findall(r"'signature': {(.*?)}", code))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_a_block_decodes_in_ten_kernels_and_one_of_attention(generated, kind):
    """Two that sum squares, five of products (keys with values, gate with up), two of RoPE, one of the mask."""
    assert len(KERNEL.findall(generated[kind])) == 10
    assert LIBRARY.findall(generated[kind]) == ["torch.ops.aten._scaled_dot_product_efficient_attention.default"]


def test_a_block_in_int8_reads_each_matrix_once_and_as_int8(generated):
    assert pointers(generated["int8"], "i8") == MATRICES
    assert pointers(generated["bfloat16"], "i8") == 0


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_no_matrix_is_widened_in_memory(generated, kind):
    sizes = [math.prod(map(int, re.findall(r"\d+", shape))) for shape in ALLOCATION.findall(generated[kind])]
    assert 14_336 == max(sizes) < SMALLEST  # the largest is what w_gate and w_up make of a token


def test_an_int8_layer_without_compile_is_one_kernel_for_a_token(generated):
    code = generated["int8 layer"]
    assert len(KERNEL.findall(code)) == 1
    assert pointers(code, "i8") == 1
    assert LIBRARY.findall(code) == []
