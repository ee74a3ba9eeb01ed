"""Part 5 - what is shown of attention, a line of the notebook each."""

from decoding_llama3.lessons.looks.attention.cost import cache_roofline, sharing, step_times
from decoding_llama3.lessons.looks.attention.further import (
    circuit_forming,
    copying_heads,
    copying_silenced,
    each_head_silenced,
)
from decoding_llama3.lessons.looks.attention.mechanism import (
    dice,
    growing_cache,
    head_outputs,
    keys_in_use,
    likeness,
    mixture,
    query_scores,
    repeated_word,
    saturation,
    soft_lookup,
    two_needs,
    wiring,
)
from decoding_llama3.lessons.looks.attention.models import (
    block_heads,
    blocks_that_matter,
    handed_over,
    head_kinds,
    two_ways,
)
from decoding_llama3.lessons.looks.attention.sinks import first_token

__all__ = [
    "block_heads",
    "blocks_that_matter",
    "cache_roofline",
    "circuit_forming",
    "copying_heads",
    "copying_silenced",
    "dice",
    "each_head_silenced",
    "first_token",
    "growing_cache",
    "handed_over",
    "head_kinds",
    "head_outputs",
    "keys_in_use",
    "likeness",
    "mixture",
    "query_scores",
    "repeated_word",
    "saturation",
    "sharing",
    "soft_lookup",
    "step_times",
    "two_needs",
    "two_ways",
    "wiring",
]
