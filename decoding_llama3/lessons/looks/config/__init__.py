"""Part 2 - what is shown of the configuration, a line of the notebook each."""

from decoding_llama3.lessons.looks.config.building import (
    block_matrices,
    changed_fields,
    count_elsewhere,
    embedded_rows,
    shapes_by_step,
    toy_lookup,
    width_rule,
)
from decoding_llama3.lessons.looks.config.drawing import ALT, ALT_CARD, drawn, moved, towers
from decoding_llama3.lessons.looks.config.memory import equal_work, memory_need, tied_saving
from decoding_llama3.lessons.looks.config.models import (
    context_lengths,
    learned_order,
    nearest_rows,
    swept_fields,
    theta_by_length,
)
from decoding_llama3.lessons.looks.config.names import names_elsewhere, show_class

__all__ = [
    "ALT",
    "ALT_CARD",
    "block_matrices",
    "changed_fields",
    "context_lengths",
    "count_elsewhere",
    "drawn",
    "embedded_rows",
    "equal_work",
    "learned_order",
    "memory_need",
    "moved",
    "names_elsewhere",
    "nearest_rows",
    "shapes_by_step",
    "show_class",
    "swept_fields",
    "theta_by_length",
    "tied_saving",
    "towers",
    "toy_lookup",
    "width_rule",
]
