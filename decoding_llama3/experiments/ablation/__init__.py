"""The ablation lab: small Llamas in which one part is exchanged, trained side by side on the same data.

Every variant is `Transformer` as the package builds it, with parts exchanged from outside; no component knows of
it. All of a seed's variants see the same batches and start from the same weights wherever a weight has the same
name and shape, so that their losses may be compared pair by pair. `decoding-llama3 ablate` runs it all.

What it cannot show: a model of about 100,000 parameters that reads 64 characters at a time says nothing about
stability at scale, about long contexts or about speed on a GPU. It shows what these sizes and this recipe give.
"""

from decoding_llama3.experiments.ablation.lab import rerun, run_lab, same_text
from decoding_llama3.experiments.ablation.model import build_variant
from decoding_llama3.experiments.ablation.run import Curves, LossPoint, mean_loss, train_model, train_variant
from decoding_llama3.experiments.ablation.statistics import Difference, compare, verdict
from decoding_llama3.experiments.ablation.store import Run, missing_runs, read_curves, read_runs
from decoding_llama3.experiments.ablation.text import Text
from decoding_llama3.experiments.ablation.variants import CHOICES, GROUPS, LLAMA3, Settings, Variant

__all__ = [
    "CHOICES",
    "GROUPS",
    "LLAMA3",
    "Curves",
    "Difference",
    "LossPoint",
    "Run",
    "Settings",
    "Text",
    "Variant",
    "build_variant",
    "compare",
    "mean_loss",
    "missing_runs",
    "read_curves",
    "read_runs",
    "rerun",
    "run_lab",
    "same_text",
    "train_model",
    "train_variant",
    "verdict",
]
