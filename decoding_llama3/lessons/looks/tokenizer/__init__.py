"""Part 1 - what is shown of the tour and of the tokenizer, a line of the notebook each."""

from decoding_llama3.lessons.looks.tokenizer.building import (
    bricks,
    conversation,
    counting,
    cut_by,
    other_cuts,
    split_by_rules,
    three_cuts,
)
from decoding_llama3.lessons.looks.tokenizer.lists import CODE, ODD, SENTENCES
from decoding_llama3.lessons.looks.tokenizer.models import (
    alike,
    languages,
    never_met,
    taken_away,
    two_vocabularies,
    untrained,
    untrained_of,
)
from decoding_llama3.lessons.looks.tokenizer.tour import (
    next_words,
    ride,
    six_logits,
    six_losses,
    six_probabilities,
    surprises,
)

__all__ = [
    "CODE",
    "ODD",
    "SENTENCES",
    "alike",
    "bricks",
    "conversation",
    "counting",
    "cut_by",
    "languages",
    "never_met",
    "next_words",
    "other_cuts",
    "ride",
    "six_logits",
    "six_losses",
    "six_probabilities",
    "split_by_rules",
    "surprises",
    "taken_away",
    "three_cuts",
    "two_vocabularies",
    "untrained",
    "untrained_of",
]
