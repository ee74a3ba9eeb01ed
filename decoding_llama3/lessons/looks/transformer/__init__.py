"""Part 7 - what is shown of the whole model, a line of the notebook each."""

from decoding_llama3.lessons.looks.transformer.build import (
    by_hand,
    last_logits,
    lesson,
    looked_up,
    sampled,
    shape_ladder,
    two_writes,
    walk,
    wirings,
)
from decoding_llama3.lessons.looks.transformer.further import (
    compression,
    heads_learned,
    moments,
    shapes_tried,
    speed_rungs,
)
from decoding_llama3.lessons.looks.transformer.models import choices, journey, lens, lens_losses, spared, told
from decoding_llama3.lessons.looks.transformer.running import (
    cache_timings,
    chat,
    compare_huggingface,
    same_weights,
)

__all__ = [
    "by_hand",
    "cache_timings",
    "chat",
    "choices",
    "compare_huggingface",
    "compression",
    "heads_learned",
    "journey",
    "last_logits",
    "lens",
    "lens_losses",
    "lesson",
    "looked_up",
    "moments",
    "same_weights",
    "sampled",
    "shape_ladder",
    "shapes_tried",
    "spared",
    "speed_rungs",
    "told",
    "two_writes",
    "walk",
    "wirings",
]
