"""Compare two checkpoints of any formats: settings, tensors, and what both make of a prompt."""

import dataclasses
import gc
from collections.abc import Callable, Sequence
from os import PathLike

import torch
from jaxtyping import Float
from torch import Tensor, nn

from decoding_llama3.comparison.causes import Cause, are_related, find_causes
from decoding_llama3.comparison.prompt import default_ids
from decoding_llama3.comparison.reading import far_positions
from decoding_llama3.comparison.verification import Distance, distance
from decoding_llama3.comparison.weights import ORDERS, TensorMatch, compare_tensors
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.agreement import check_agreement
from decoding_llama3.inference.checkpoint.find import open_checkpoint
from decoding_llama3.inference.load import load_model
from decoding_llama3.inference.memory import free_bytes, needed_bytes
from decoding_llama3.inspect.probe import configured, next_token_losses
from decoding_llama3.transformer import Transformer

_TURNED = ("rope_theta", "rope_scaling", "norm_eps", "n_heads", "n_kv_heads")


@dataclasses.dataclass(frozen=True)
class PromptComparison:
    """What two models make of one prompt, at its first positions and far into the context.

    `turned` is how far B is from A after what was found is done to A: rows reordered, the settings of RoPE, norms
    and heads those of B. `losses` are in nats per token, A's and B's, if the prompt is a text.
    """

    prompt: str
    near: Distance
    far: Distance
    turned: Distance
    losses: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was found. `on_prompt` is None where the weights are not related, or memory is too small for them."""

    settings: list[tuple[str, object, object]]
    tensors: list[TensorMatch]
    causes: list[Cause]
    related: bool
    on_prompt: PromptComparison | None

    @property
    def first(self) -> TensorMatch | None:
        """The first tensor that differs, in the order of the model."""
        return next((each for each in self.tensors if not each.is_same), None)

    @property
    def is_equal(self) -> bool:
        """Whether all settings and all weights are equal."""
        return self.first is None and all(a == b for _, a, b in self.settings)


def compare_checkpoints(
    a: str | PathLike, b: str | PathLike, report: Callable[[str], None] = lambda line: None
) -> Comparison:
    """Compare two checkpoints; the models are run in float32 on the CPU, one after the other.

    Raises ValueError for one that cannot be loaded.
    """
    checkpoints = open_checkpoint(a), open_checkpoint(b)
    for each in checkpoints:
        check_agreement(each)
    config_a, config_b = (each.config for each in checkpoints)
    settings = [
        (f.name, getattr(config_a, f.name), getattr(config_b, f.name)) for f in dataclasses.fields(config_a)
    ]
    tensors = []
    for match in compare_tensors(*checkpoints):
        report(f"{match.name}: {match.kind}")
        tensors.append(match)
    related, on_prompt = are_related(tensors), None
    if related and all(_fits(each.config) for each in checkpoints):
        report("running both on a prompt")
        on_prompt = compare_on_prompt(a, b, config_a, config_b, tensors)
    return Comparison(settings, tensors, find_causes(config_a, config_b, tensors), related, on_prompt)


def compare_on_prompt(
    a: str | PathLike,
    b: str | PathLike,
    config_a: LlamaConfig,
    config_b: LlamaConfig,
    tensors: Sequence[TensorMatch],
) -> PromptComparison:
    """Run A, A turned into B as far as is known how, and B. Raises ValueError for what cannot be loaded."""
    small = dataclasses.replace(
        config_a,
        vocab_size=min(config_a.vocab_size, config_b.vocab_size),
        max_seq_len=min(config_a.max_seq_len, config_b.max_seq_len),
    )
    ids, what = default_ids(small, a)
    tokens, vocab = torch.tensor([ids]), small.vocab_size
    places = torch.arange(len(ids)), far_positions(len(ids), small.max_seq_len)
    model = load_model(a, dtype=torch.float32)
    ours = [_logits(model, tokens, at, vocab) for at in places]
    turned = _turned(model, config_b, tensors, lambda: _logits(model, tokens, places[1], vocab))
    del model
    gc.collect()
    model = load_model(b, dtype=torch.float32)
    theirs = [_logits(model, tokens, at, vocab) for at in places]
    pair = ours[0], theirs[0]
    losses = tuple(next_token_losses(logits[None], tokens).mean().item() for logits in pair)
    near, far = (distance(name, *each) for name, *each in zip(("near", "far"), ours, theirs, strict=True))
    is_text = not what.startswith("ids at random")
    loss_of_each = (losses[0], losses[1]) if is_text and len(ids) > 1 else None
    return PromptComparison(what, near, far, distance("turned", turned, theirs[1]), loss_of_each)


def _turned(
    model: Transformer, config: LlamaConfig, tensors: Sequence[TensorMatch], run: Callable[[], Tensor]
) -> Tensor:
    """What `run` gives with the model's rows reordered and its settings those of `config`, as far as may be."""
    for each in tensors:
        if each.order is not None:
            module = model.get_submodule(each.name.removesuffix(".weight"))
            assert isinstance(module, nn.Linear)
            weight = ORDERS[each.order](module.weight, model.config.head_dim)
            module.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    widths = [(c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim) for c in (model.config, config)]
    names = _TURNED if widths[0] == widths[1] else _TURNED[:3]
    with configured(model, **{name: getattr(config, name) for name in names}):
        return run()


@torch.inference_mode()
def _logits(model: Transformer, tokens: Tensor, positions: Tensor, vocab: int) -> Float[Tensor, "seq vocab"]:
    return model(tokens, positions)[0, :, :vocab].clone()


def _fits(config: LlamaConfig) -> bool:
    return needed_bytes(config, torch.float32) <= free_bytes("cpu")
