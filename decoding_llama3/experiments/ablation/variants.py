"""The switches of the ablation lab: what each part can be exchanged for."""

import math
from dataclasses import asdict, dataclass

from decoding_llama3.inference.arguments import check_real, check_whole

CHOICES = {  # switch: what it can be set to, Llama 3's own part first
    "norm": ("RMSNorm", "LayerNorm", "none", "post-norm"),
    "position": ("RoPE", "learned", "sinusoidal", "none"),
    "kv_heads": ("GQA", "MHA", "MQA"),
    "feed_forward": ("SwiGLU", "ReLU", "GELU", "bilinear", "GLU", "ReGLU", "GEGLU"),
    "tying": ("untied", "tied"),
    "scale": ("1/sqrt(head_dim)", "none"),
    "gate": ("silu", "silu + 1", "sigmoid - 1/2"),  # of SwiGLU: a constant added, or that of GLU taken away
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting of the switches; without arguments it is Llama 3. A value not in `CHOICES` raises
    ValueError, and so does another gate for what is not SwiGLU.
    """

    norm: str = "RMSNorm"
    position: str = "RoPE"
    kv_heads: str = "GQA"
    feed_forward: str = "SwiGLU"
    tying: str = "untied"
    scale: str = "1/sqrt(head_dim)"
    gate: str = "silu"

    def __post_init__(self) -> None:
        for switch, value in asdict(self).items():
            if value not in CHOICES[switch]:
                raise ValueError(f"{switch} is one of {', '.join(CHOICES[switch])}, found {value!r}")
        if self.feed_forward != "SwiGLU" and self.gate != "silu":
            raise ValueError(f"the gate {self.gate!r} is one of SwiGLU, found it with {self.feed_forward}")


LLAMA3 = "llama3"  # the group of the one baseline that all groups share
GROUPS = {switch: {name: Variant(**{switch: name}) for name in names} for switch, names in CHOICES.items()}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Size and recipe, the same for all variants: AdamW, a warm-up, then a cosine down to a tenth.

    A number out of range raises ValueError.
    """

    dim: int = 64
    n_layers: int = 2
    n_heads: int = 4
    hidden_dim: int = 176  # of a gated feed-forward; one without gate is half again as wide
    seq_len: int = 64  # characters
    batch: int = 16  # sequences per step
    steps: int = 1000
    learning_rate: float = 3e-3
    warmup: int = 20  # steps
    weight_decay: float = 0.1  # of matrices and tables; norms do not decay
    eval_every: int = 50  # steps

    def __post_init__(self) -> None:
        for name in ("dim", "n_layers", "n_heads", "hidden_dim", "seq_len", "batch", "steps", "eval_every"):
            check_whole(name, getattr(self, name), 1)
        check_whole("warmup", self.warmup, 0)
        check_real("the learning rate", self.learning_rate, "above 0 and finite", lambda rate: rate > 0)
        check_real("the weight decay", self.weight_decay, "0 or more and finite", lambda decay: decay >= 0)

    def learning_rate_at(self, step: int) -> float:
        """Of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.55 + 0.45 * math.cos(math.pi * progress))
