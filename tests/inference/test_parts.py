"""Parts exchanged: what the new model computes, whose weights it has, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from conftest import randomize, relative_difference, shrink
from torch import nn

import decoding_llama3 as dl
from decoding_llama3.inference.parts import with_parts

TOKENS = torch.tensor([[5, 77, 130, 9, 64, 3]])


def uniform(q, k, v, mask):
    return dl.attend(0 * q, k, v, mask)


class LayerNorm(nn.LayerNorm):
    def __init__(self, dim, eps):
        super().__init__(dim, eps, bias=False)


class GeluFeedForward(dl.FeedForward):
    def forward(self, x):
        return self.w_down(F.gelu(self.w_gate(x)) * self.w_up(x))


class ParallelBlock(dl.TransformerBlock):
    def forward(self, x, positions, rotation, mask=None, cache=None):
        attended = self.attention(self.attention_norm(x), positions, rotation, mask, cache)
        return x + attended + self.feed_forward(self.ffn_norm(x))


class NoAttention(nn.Module):
    def __init__(self, config):
        super().__init__()

    def forward(self, x, positions, rotation, mask=None, cache=None):
        return torch.zeros_like(x)


PARTS = {
    "attend": uniform, "rotate": lambda x, rotation: x, "norm": LayerNorm, "last_norm": LayerNorm,
    "feed_forward": GeluFeedForward, "block": ParallelBlock,
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_the_model_computes_with_the_new_part_and_the_old_weights(name, model):
    before = model(TOKENS)
    changed = with_parts(model, **{name: PARTS[name]})
    assert relative_difference(changed(TOKENS), before) > 1e-3
    assert torch.equal(model(TOKENS), before)
    old, new = dict(model.named_parameters()), dict(changed.named_parameters())
    assert old.keys() == new.keys()
    assert all(new[key] is old[key] for key in old)


def test_the_packages_own_parts_change_nothing(model):
    same = with_parts(
        model, attend=dl.attend, rotate=dl.apply_rope, norm=dl.RMSNorm, attention=dl.Attention,
        feed_forward=dl.FeedForward, block=dl.TransformerBlock, embedding=nn.Embedding,
    )  # fmt: skip
    assert torch.equal(same(TOKENS), model(TOKENS))


def test_a_definition_in_place_of_the_kernel_gives_the_same_tokens(model):
    definition = with_parts(model, attend=lambda *args: dl.attend_explicitly(*args)[0])
    prompt = TOKENS[0].tolist()
    assert list(dl.generate(definition, prompt, 20)) == list(dl.generate(model, prompt, 20))


def test_parts_are_exchanged_one_after_another(model):
    once = with_parts(model, feed_forward=GeluFeedForward, attend=uniform)
    twice = with_parts(with_parts(model, feed_forward=GeluFeedForward), attend=uniform)
    assert torch.equal(once(TOKENS), twice(TOKENS))


def test_tied_weights_stay_tied():
    model = randomize(dl.Transformer(shrink("llama3.2-1b")))
    changed = with_parts(model, embedding=nn.Embedding, norm=LayerNorm)
    assert changed.output.weight is changed.tok_embeddings.weight is model.tok_embeddings.weight


def test_training_one_trains_the_other(model):
    """They share their weights; a caller who wants two models copies one first."""
    changed = with_parts(model, attend=uniform)
    with torch.no_grad():
        changed.layers[0].attention.wo.weight.zero_()
    assert not model.layers[0].attention.wo.weight.any()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            {"attention": NoAttention},
            "new layers.0.attention has for the weight 'wk.weight' the shape none, the model",
        ),
        (
            {"norm": lambda dim, eps: nn.LayerNorm(dim, eps)},
            "for the weight 'bias' the shape .* the model has none",
        ),
        (
            {"embedding": lambda n, dim: nn.Embedding(n + 1, dim)},
            r"'weight' the shape \(321, 192\), .* \(320, 192\)",
        ),
    ],
)
def test_other_weights_are_refused_unless_asked_for(part, words, model):
    with pytest.raises(ValueError, match=words):
        with_parts(model, **part)
    with_parts(model, **part, new_weights=True)


def test_new_weights_have_the_models_dtype(model):
    changed = with_parts(model.bfloat16(), norm=lambda dim, eps: nn.LayerNorm(dim, eps), new_weights=True)
    assert changed.norm.bias.dtype == torch.bfloat16
    assert changed.norm.weight is model.norm.weight
    assert changed(TOKENS).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_new_parts_are_in_the_mode_of_the_model(training, model):
    changed = with_parts(model.train(training), feed_forward=GeluFeedForward, norm=LayerNorm)
    assert {module.training for module in changed.modules()} == {training}
