"""What the machine can hold, against sums done by hand."""

import pytest
import torch

from decoding_llama3.inference.doctor import _largest_model

# 8,030,261,248 weights of 2 bytes and a cache of 8,192 tokens of 131,072 bytes are 17.13 GB; a tenth stays free.
NEEDED_8B = (2 * 8_030_261_248 + 8192 * 131_072) / 0.9


@pytest.mark.parametrize(("free", "answer"), [(NEEDED_8B * 1.001, "8b"), (NEEDED_8B * 0.999, "mistral-7b")])
def test_the_largest_model_is_the_one_whose_weights_and_cache_fit(free, answer):
    found = _largest_model(torch.bfloat16, int(free))
    assert answer in found
    assert found.endswith("in bfloat16")


def test_int8_is_offered_where_only_that_fits():
    needed = (5_573_888 * 1 + 512 * 2 * 6 * 2 * 32 * 2) / 0.9
    assert _largest_model(torch.bfloat16, int(needed * 1.01)) == "tiny in int8"
    assert _largest_model(torch.bfloat16, 1000) == "none: not even tiny fits"
