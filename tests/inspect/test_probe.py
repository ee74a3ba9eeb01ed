"""What the probes report, against what the model itself computes."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import randomize, shrink

import decoding_llama3 as dl
from decoding_llama3.inference.quantize import quantized
from decoding_llama3.inspect import probe

SCALING = dl.LlamaConfig.from_preset("llama3.1-8b").rope_scaling
TOKENS = torch.tensor([[7, 1, 200, 33, 33, 90, 2]])
ROWS = torch.tensor([[7, 1, 200, 33, 33], [5, 319, 0, 14, 90]])
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
        v = attention.split_heads(record.outputs[f"layers.{i}.attention.wv"])
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


def test_shares_of_a_logit_sum_to_the_models_own(model):
    """Not so at another position, with a norm of each write's own, without the norm's weights or the mean."""
    shares = probe.logit_attribution(model, ROWS, position=3, token=42)
    assert list(shares) == list(probe.residual_stream(model, ROWS))
    logits = model(ROWS)[:, 3]
    assert logits.mean(dim=-1).abs().min() > 1e-3
    torch.testing.assert_close(sum(shares.values()), logits[:, 42] - logits.mean(dim=-1), **CLOSE)


def test_a_part_that_writes_nothing_has_no_share(model):
    with torch.no_grad():
        model.layers[1].attention.wo.weight.zero_()
    shares = probe.logit_attribution(model, ROWS, position=4, token=42)
    assert shares.pop("1.attention").eq(0).all()
    assert all(share.ne(0).all() for share in shares.values())


def test_neuron_activations_are_silu_of_the_gate_times_up(model):
    feed_forward = model.layers[1].feed_forward
    x = model.layers[1].ffn_norm(probe.residual_stream(model, ROWS)["1.attention"])
    gate, up = x @ feed_forward.w_gate.weight.T, x @ feed_forward.w_up.weight.T
    expected = gate / (1 + (-gate).exp()) * up
    torch.testing.assert_close(probe.neuron_activations(model, ROWS, layer=1), expected, **CLOSE)


def test_triggers_are_the_strongest_tokens_of_either_sign(model):
    """Embeddings by hand: neuron 5 reads a gate of 20 (silu leaves it as it is) times the number of the token."""
    numbers = {1: 3.0, 7: -9.0, 33: 1.0, 200: 0.5, 5: 6.0, 319: -2.0, 0: -1.5, 14: 4.0, 90: -5.0}
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1 if weight.dim() == 1 else 0)
        for token, number in numbers.items():
            rest = (model.config.dim - 1 - number**2) ** 0.5  # so that the norm divides by 1
            model.tok_embeddings.weight[token, :3] = torch.tensor([1.0, number, rest])
        model.layers[0].feed_forward.w_gate.weight[5, 0] = 20
        model.layers[0].feed_forward.w_up.weight[5, 1] = 1
    found = probe.neuron_triggers(model, ROWS, layer=0, neuron=5, k=4)
    assert [place[:2] for place in found] == [(0, 0), (1, 0), (1, 4), (1, 3)]
    assert [place[2] for place in found] == pytest.approx([-180, 120, -100, 80], rel=1e-4)


def test_the_loss_is_that_of_the_token_that_comes_next():
    logits = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]]).log()
    losses = probe.next_token_losses(logits, torch.tensor([[1, 0, 1]]))
    torch.testing.assert_close(losses, torch.tensor([[-math.log(0.9), -math.log(0.8)]]))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2), (2, 1, 0), (0, 1, 1, 2), ()])
def test_blocks_in_another_order_are_a_model_built_in_that_order(order):
    torch.testing.assert_close(probe.run_layers(three_blocks(), ROWS, order), rebuilt(order)(ROWS), rtol=0, atol=0)


def test_a_block_that_writes_nothing_costs_nothing_to_delete_or_move():
    model = three_blocks()
    with torch.no_grad():
        model.layers[1].attention.wo.weight.zero_()
        model.layers[1].feed_forward.w_down.weight.zero_()
    deleted, swapped = probe.layer_deletion(model, ROWS), probe.layer_swap(model, ROWS)
    assert deleted[1] == 0
    assert deleted[0].abs() > 1e-3 < deleted[2].abs()
    assert swapped[0, 1] == swapped[1, 2] == 0
    assert swapped[0, 2].abs() > 1e-3


def test_deletion_and_swap_measure_the_rise_of_the_loss():
    deleted, swapped = (measure(three_blocks(), ROWS) for measure in (probe.layer_deletion, probe.layer_swap))
    straight = loss(rebuilt((0, 1, 2)))
    expected = torch.stack([loss(rebuilt(order)) for order in ((1, 2), (0, 2), (0, 1))]) - straight
    torch.testing.assert_close(deleted, expected, **CLOSE)
    assert swapped.diagonal().eq(0).all()
    for (i, j), order in {(0, 1): (1, 0, 2), (0, 2): (2, 1, 0), (1, 2): (0, 2, 1)}.items():
        expected = loss(rebuilt(order)) - straight
        torch.testing.assert_close(swapped[[i, j], [j, i]], expected.expand(2), **CLOSE)


def three_blocks() -> dl.Transformer:
    return randomize(dl.Transformer(dataclasses.replace(shrink("llama3-8b"), n_layers=3)))


def rebuilt(order: tuple[int, ...]) -> dl.Transformer:
    model = three_blocks()
    model.layers = torch.nn.ModuleList(copy.deepcopy(model.layers[i]) for i in order)
    return model


@torch.no_grad()
def loss(model: dl.Transformer) -> torch.Tensor:
    return F.cross_entropy(model(ROWS)[:, :-1].flatten(0, 1), ROWS[:, 1:].flatten())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: probe.logit_attribution(m, ROWS, position=5, token=0), "no position 5: choose one of 0 to 4$"),
        (lambda m: probe.logit_attribution(m, ROWS, position=-1, token=0), "no position -1"),
        (lambda m: probe.logit_attribution(m, ROWS, position=0, token=320), "no token 320: .* 0 to 319$"),
        (lambda m: probe.neuron_activations(m, ROWS, layer=2), "no layer 2: choose one of 0 to 1$"),
        (lambda m: probe.neuron_triggers(m, ROWS, layer=0, neuron=176, k=1), "no neuron 176: .* 0 to 175$"),
        (lambda m: probe.neuron_triggers(m, ROWS, layer=0, neuron=0, k=11), "k is 11, but there are 10 tokens"),
        (lambda m: probe.run_layers(m, ROWS, [0, -1]), "no layer -1"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_it_works_on_tiny():
    tokenizer = dl.load_tokenizer("tiny")
    tokens = torch.tensor([tokenizer.encode("The king had a golden bird", bos=True)])
    assert len(probe.attention_weights(dl.load_model("tiny", dtype=torch.float32), tokens)) == 6


def test_the_loss_is_the_mean_over_all_rows(model):
    expected = F.cross_entropy(model(ROWS)[:, :-1].flatten(0, 1), ROWS[:, 1:].flatten())
    assert probe.loss_of(model, ROWS) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"rope_theta": 300.0}, {"norm_eps": 0.3}, {"rope_scaling": SCALING}, {"n_heads": 24, "n_kv_heads": 6}],
)
def test_under_another_configuration_the_weights_are_those_of_that_model(model, changes):
    before = model(TOKENS)
    n_heads = changes.get("n_heads", model.config.n_heads)
    head_dim = model.config.dim // n_heads
    other = dl.Transformer(dataclasses.replace(model.config, head_dim=head_dim, **changes))
    other.load_state_dict(model.state_dict())
    with probe.configured(model, **changes):
        torch.testing.assert_close(model(TOKENS), other(TOKENS), rtol=0, atol=0)
    torch.testing.assert_close(model(TOKENS), before, rtol=0, atol=0)


@pytest.mark.parametrize(("changes", "words"), [({"dim": 8}, "dim shapes"), ({"n_heads": 6}, "another shape")])
def test_a_configuration_of_another_shape_is_refused(model, changes, words):
    before = model.config
    with pytest.raises(ValueError, match=words), probe.configured(model, **changes):
        pass
    assert model.config is before


def test_what_reads_zeros_writes_zeros(model):
    silent, before = copy.deepcopy(model), model(TOKENS)
    silent.layers[1].feed_forward.w_down.weight.data.zero_()
    names = probe.names_of(model, "feed_forward.w_down")
    with probe.intercepted(model, names[1:2], torch.zeros_like):
        torch.testing.assert_close(model(TOKENS), silent(TOKENS), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="stop"), probe.intercepted(model, names, torch.zeros_like):
        raise RuntimeError("stop")
    torch.testing.assert_close(model(TOKENS), before, rtol=0, atol=0)


@pytest.mark.parametrize("scaling", [None, SCALING])
def test_pairs_turn_as_fast_as_is_said(model, scaling):
    with probe.configured(model, rope_scaling=scaling):
        cosine, sine = model.rotation_at(torch.tensor([1])).unbind(-1)
        torch.testing.assert_close(probe.pair_frequencies(model), torch.atan2(sine, cosine)[0], **CLOSE)


def test_a_matrix_is_told_in_full_even_from_int8(model):
    wk = model.layers[0].attention.wk
    torch.testing.assert_close(probe.dequantized_weight(wk), wk.weight.detach())
    twin = quantized(wk)
    torch.testing.assert_close(probe.dequantized_weight(twin), twin(torch.eye(model.config.dim)).T, **CLOSE)


def test_only_the_blocks_asked_for_change_places():
    deep = randomize(dl.Transformer(dataclasses.replace(shrink("llama3-8b"), n_layers=4)))
    every = probe.layer_swap(deep, TOKENS)
    torch.testing.assert_close(probe.layer_swap(deep, TOKENS, [0, 2, 3]), every[[0, 2, 3]][:, [0, 2, 3]], **CLOSE)
