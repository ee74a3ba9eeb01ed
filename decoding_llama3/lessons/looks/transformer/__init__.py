"""Part 7 - what is shown of the whole model, a line of the notebook each."""

from decoding_llama3.lessons.looks.transformer.build import (
    by_hand,
    last_logits,
    lesson,
    pairs_of_letters,
    sampled,
    shape_ladder,
    walk,
    wirings,
)
from decoding_llama3.lessons.looks.transformer.credit import every_place, hidden, journey, said_again, told
from decoding_llama3.lessons.looks.transformer.further import (
    compression,
    heads_learned,
    moments,
    speed_rungs,
)
from decoding_llama3.lessons.looks.transformer.models import choices, lens, lens_losses, neighbours, spared
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
    "every_place",
    "heads_learned",
    "hidden",
    "journey",
    "last_logits",
    "lens",
    "lens_losses",
    "lesson",
    "moments",
    "neighbours",
    "pairs_of_letters",
    "said_again",
    "same_weights",
    "sampled",
    "shape_ladder",
    "spared",
    "speed_rungs",
    "told",
    "walk",
    "wirings",
]
