"""What the probes report, against what the model itself computes."""

import pytest
import torch

import decoding_llama3 as dl
from decoding_llama3.lessons import probe

TOKENS = torch.tensor([[7, 1, 200, 33, 33, 90, 2]])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def test_the_residual_stream_is_what_every_norm_reads(model):
    stream = probe.residual_stream(model, TOKENS)
    assert list(stream) == [
        "embedding",
        *(f"{i}.{part}" for i in range(2) for part in ("attention", "feed_forward")),
    ]
    readers = ["layers.0.attention_norm", "layers.0.ffn_norm", "layers.1.attention_norm", "layers.1.ffn_norm"]
    with probe.recording(model, [*readers, "norm"]) as record:
        model(TOKENS)
    for name, values in zip([*readers, "norm"], stream.values(), strict=True):
        torch.testing.assert_close(record.inputs[name], values, **CLOSE)


def test_attention_weights_are_those_that_made_the_output(model):
    """Weights times values, through the output projection, is what the layer wrote."""
    names = [f"layers.{i}.attention{part}" for i in range(2) for part in ("", ".wv")]
    with probe.recording(model, names) as record:
        model(TOKENS)
    for i, weights in enumerate(probe.attention_weights(model, TOKENS)):
        assert weights.shape == (1, model.config.n_heads, 7, 7)
        attention = model.layers[i].attention
        v = attention._split_heads(record.outputs[f"layers.{i}.attention.wv"])
        v = v.repeat_interleave(model.config.queries_per_kv, dim=1)
        out = attention.wo((weights @ v).transpose(1, 2).flatten(-2))
        torch.testing.assert_close(out, record.outputs[f"layers.{i}.attention"], **CLOSE)
        assert weights.triu(1).eq(0).all()


def test_queries_and_keys_are_rotated_unless_asked_otherwise(model):
    rotated, plain = (probe.queries_and_keys(model, TOKENS, rotated=r) for r in (True, False))
    for (q, k), (q0, k0) in zip(rotated, plain, strict=True):
        assert q.shape[1:] == (model.config.n_heads, 7, 16)
        assert k.shape[1:] == (model.config.n_kv_heads, 7, 16)
        torch.testing.assert_close(q.norm(dim=-1), q0.norm(dim=-1))
        assert torch.equal(k[:, :, 0], k0[:, :, 0])  # position 0: nothing turns
        assert not torch.allclose(k[:, :, 1:], k0[:, :, 1:])


def test_the_logit_lens_ends_with_the_models_own_logits(model):
    lens = probe.logit_lens(model, TOKENS)
    assert len(lens) == 3
    torch.testing.assert_close(lens[-1], model(TOKENS), **CLOSE)
    assert not torch.allclose(lens[0], lens[-1])


def test_hooks_are_gone_afterwards_and_the_components_untouched(model):
    before = model(TOKENS)
    with pytest.raises(ZeroDivisionError), probe.recording(model, ["norm", "layers.0.attention"]):
        raise ZeroDivisionError
    assert all(not module._forward_hooks for module in model.modules())
    assert torch.equal(model(TOKENS), before)


def test_a_module_that_is_not_there_is_named(model):
    with pytest.raises(ValueError, match=r"no module 'layers\.9'"), probe.recording(model, ["norm", "layers.9"]):
        pass
    assert all(not module._forward_hooks for module in model.modules())


def test_it_works_on_tiny():
    tokenizer = dl.load_tokenizer("tiny")
    tokens = torch.tensor([tokenizer.encode("The king had a golden bird", bos=True)])
    assert len(probe.attention_weights(dl.load_model("tiny", dtype=torch.float32), tokens)) == 6
