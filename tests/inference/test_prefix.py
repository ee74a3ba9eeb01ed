"""The common beginning of two texts, against what os.path finds for lists."""

import os

from hypothesis import given
from hypothesis import strategies as st

from decoding_llama3.inference.prefix import prefix_length

few = st.lists(st.integers(0, 2), max_size=8)


@given(few, few)
def test_the_length_is_that_of_the_common_prefix(one, other):
    assert prefix_length(one, other) == prefix_length(other, one) == len(os.path.commonprefix([one, other]))  # noqa: RUF071 (of lists it compares items)
    assert prefix_length(bytes(one), bytes(other)) == prefix_length(one, other)
