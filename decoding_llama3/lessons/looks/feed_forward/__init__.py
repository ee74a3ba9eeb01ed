"""Part 6 - what is shown of the feed-forward network, a line of the notebook each."""

from decoding_llama3.lessons.looks.feed_forward.mechanism import (
    alone,
    branches,
    gate_curves,
    hinges,
    only_with_both,
    paired,
    row_times_token,
    seen_whole,
    silu_curve,
    toy_gate,
    toy_machine,
)
from decoding_llama3.lessons.looks.feed_forward.models import (
    as_table,
    closed_gates,
    silenced_parts,
    strongest_few,
)
from decoding_llama3.lessons.looks.feed_forward.pushes import pushed_word, sinking
from decoding_llama3.lessons.looks.feed_forward.race import ahead_by_step, loudness_at_start
from decoding_llama3.lessons.looks.feed_forward.sizes import matrix_timings
from decoding_llama3.lessons.looks.feed_forward.words import feature_for, feature_in_text, kinds, most_awake, wakes

__all__ = [
    "ahead_by_step",
    "alone",
    "as_table",
    "branches",
    "closed_gates",
    "feature_for",
    "feature_in_text",
    "gate_curves",
    "hinges",
    "kinds",
    "loudness_at_start",
    "matrix_timings",
    "most_awake",
    "only_with_both",
    "paired",
    "pushed_word",
    "row_times_token",
    "seen_whole",
    "silenced_parts",
    "silu_curve",
    "sinking",
    "strongest_few",
    "toy_gate",
    "toy_machine",
    "wakes",
]
