"""Training of a small model on a folder of text."""

from decoding_llama3.experiments.training.curve import learning_curve
from decoding_llama3.experiments.training.loss import bits_per_byte
from decoding_llama3.experiments.training.optimizers import initialize, make_optimizers
from decoding_llama3.experiments.training.run import train
from decoding_llama3.experiments.training.settings import Repeats, TrainingSettings
from decoding_llama3.experiments.training.vocabulary import train_tokenizer

__all__ = [
    "Repeats",
    "TrainingSettings",
    "bits_per_byte",
    "initialize",
    "learning_curve",
    "make_optimizers",
    "train",
    "train_tokenizer",
]
