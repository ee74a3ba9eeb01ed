"""Part 4 - what is shown of rotary embeddings, a line of the notebook each."""

from decoding_llama3.lessons.looks.rope.counts import yardstick
from decoding_llama3.lessons.looks.rope.layouts import fingerprints, pair_layouts, rotate_by_halves, spoken
from decoding_llama3.lessons.looks.rope.lengths import decay, long_text, slowed_pairs
from decoding_llama3.lessons.looks.rope.mechanism import (
    attempts,
    clock,
    dials,
    keys_by_hand,
    phase_map,
    query_by_hand,
    three_distances,
    wedge_at,
    wedges,
)
from decoding_llama3.lessons.looks.rope.models import (
    bands,
    looks_back,
    one_back,
    one_back_controls,
    theta_sweep,
)
from decoding_llama3.lessons.looks.rope.turning import asking

__all__ = [
    "asking",
    "attempts",
    "bands",
    "clock",
    "decay",
    "dials",
    "fingerprints",
    "keys_by_hand",
    "long_text",
    "looks_back",
    "one_back",
    "one_back_controls",
    "pair_layouts",
    "phase_map",
    "query_by_hand",
    "rotate_by_halves",
    "slowed_pairs",
    "spoken",
    "theta_sweep",
    "three_distances",
    "wedge_at",
    "wedges",
    "yardstick",
]
