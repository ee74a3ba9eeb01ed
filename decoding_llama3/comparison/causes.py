"""Why two checkpoints with the same weights compute another thing: what is likely, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from decoding_llama3.comparison.weights import EQUAL, KIN, MISSING, OTHER, ROUNDED, TensorMatch
from decoding_llama3.config import LlamaConfig

_LAYOUTS = {
    "interleaved": "B's are A's interleaved once more (x0, y0, x1, y1, ...). If A is the one that answers "
    "sensibly, B's file holds Meta's interleaved rows where its format has Hugging Face's half-split ones; else "
    "A's file holds half-split rows where its format has interleaved ones",
    "split": "B's are A's split into halves once more (x0, x1, ..., y0, y1, ...). If A is the one that answers "
    "sensibly, B's file holds Hugging Face's half-split rows where its format has Meta's interleaved ones; else "
    "A's file holds interleaved rows where its format has half-split ones",
}
_HEADS = ("n_heads", "n_kv_heads", "head_dim")


@dataclass(frozen=True)
class Cause:
    """A short name, such as "theta", and what is the case."""

    name: str
    text: str


def are_related(tensors: Sequence[TensorMatch]) -> bool:
    """Whether most matrices of the two are the same weights, however stored. Vectors of norms are all alike."""
    matrices = [each for each in tensors if len(each.shape_a or each.shape_b or ()) == 2]
    kin = [each for each in matrices if each.kind in (EQUAL, ROUNDED, KIN)]
    return 2 * len(kin) > len(matrices)


def find_causes(a: LlamaConfig, b: LlamaConfig, tensors: Sequence[TensorMatch]) -> list[Cause]:
    """What distinguishes two checkpoints with related weights; nothing for others, where anything might."""
    if not are_related(tensors):
        return []
    return [*_of_weights(a, b, tensors), *_of_settings(a, b)]


def _of_weights(a: LlamaConfig, b: LlamaConfig, tensors: Sequence[TensorMatch]) -> list[Cause]:
    causes = []
    for order, layout in _LAYOUTS.items():
        moved = [each.name for each in tensors if each.order == order]
        if moved:
            which = f"the rows of {moved[0]}{_and_more(moved)} lie in another order"
            causes.append(Cause("pair layout", f"{which}: {layout}"))
    for dtype in sorted({each.dtype for each in tensors if each.dtype}):
        names = [each.name for each in tensors if each.dtype == dtype]
        causes.append(Cause("rounding", f"{names[0]}{_and_more(names)}: one is the other rounded to {dtype}"))
    if close := [each for each in tensors if each.kind == KIN]:
        most, names = max(each.left for each in close), [each.name for each in close]
        text = (
            f"{names[0]}{_and_more(names)}: up to {most:.2g} apart, as quantisation or a fine-tuning leaves them"
        )
        causes.append(Cause("close weights", text))
    if a.vocab_size != b.vocab_size:
        few = min(a.vocab_size, b.vocab_size)
        text = f"{a.vocab_size:,} rows in A, {b.vocab_size:,} in B; of the first {few:,} see the tensors"
        causes.append(Cause("vocabulary grown", text))
    if other := [each.name for each in tensors if each.kind in (OTHER, MISSING)]:
        causes.append(Cause("other weights", f"{other[0]}{_and_more(other)}, for which no cause is known here"))
    if a.tie_embeddings != b.tie_embeddings:
        causes.append(_tying(a, tensors))
    return causes


def _tying(a: LlamaConfig, tensors: Sequence[TensorMatch]) -> Cause:
    tied, own = "AB" if a.tie_embeddings else "BA"
    same = any(each.name == "output.weight" and each.kind == EQUAL for each in tensors)
    what = "a copy of its embedding, so that both compute the same" if same else "a matrix of its own"
    return Cause("tying", f"{tied} uses its embedding as output, too; {own} has {what}")


def _of_settings(a: LlamaConfig, b: LlamaConfig) -> list[Cause]:
    causes = []
    if a.rope_theta != b.rope_theta:
        text = f"pairs turn by theta^(-2i/head_dim): {a.rope_theta:g} in A, {b.rope_theta:g} in B"
        causes.append(Cause("theta", text))
    if a.rope_scaling != b.rope_scaling:
        text = (
            f"of slow pairs, as since Llama 3.1: {a.rope_scaling or 'none'} in A, {b.rope_scaling or 'none'} in B"
        )
        causes.append(Cause("scaling of RoPE", text))
    if a.norm_eps != b.norm_eps:
        causes.append(Cause("norm eps", f"{a.norm_eps:g} in A, {b.norm_eps:g} in B"))
    if any(getattr(a, name) != getattr(b, name) for name in _HEADS):
        shapes = " in A, ".join(str([getattr(each, name) for name in _HEADS]) for each in (a, b))
        causes.append(Cause("heads", f"the rows of wq, wk, wv are cut into other heads, {_HEADS}: {shapes} in B"))
    if a.max_seq_len != b.max_seq_len:
        text = (
            f"{a.max_seq_len:,} tokens in A, {b.max_seq_len:,} in B; no number differs before the shorter one ends"
        )
        causes.append(Cause("context", text))
    return causes


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
