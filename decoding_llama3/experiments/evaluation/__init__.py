"""How good a small model is, and what it knows by heart."""

from decoding_llama3.experiments.evaluation.compression import compressed_bits_per_byte
from decoding_llama3.experiments.evaluation.evaluate import EvaluationSettings, evaluate
from decoding_llama3.experiments.evaluation.memorisation import memorised
from decoding_llama3.experiments.evaluation.ngram import ngram_bits_per_byte, ngram_probabilities
from decoding_llama3.experiments.evaluation.overlap import overlap, words_in
from decoding_llama3.experiments.evaluation.tales import continue_prompts, count_listed, sample_tales

__all__ = [
    "EvaluationSettings",
    "compressed_bits_per_byte",
    "continue_prompts",
    "count_listed",
    "evaluate",
    "memorised",
    "ngram_bits_per_byte",
    "ngram_probabilities",
    "overlap",
    "sample_tales",
    "words_in",
]
