"""The whole model: caches change the speed and not the result, state is weights and nothing else.

That the numbers themselves are right is settled in tests/references, by models nobody here wrote.
"""

import copy
import os

import pytest
import torch
from conftest import randomize, relative_difference, shrink

import decoding_llama3 as dl

WRONG_TYPE = (
    TypeError if os.environ.get("TYPED") == "1" else (RuntimeError, IndexError, AttributeError, ValueError)
)


@pytest.fixture(params=["llama3-8b", "llama3.2-1b"])
def either(request) -> dl.Transformer:
    """Untied and plain; tied and scaled."""
    return randomize(dl.Transformer(shrink(request.param)))


@pytest.fixture
def tokens(model) -> torch.Tensor:
    return torch.randint(model.config.vocab_size, (2, 40))


@torch.inference_mode()
def in_chunks(model, tokens, sizes, caches) -> torch.Tensor:
    logits, start = [], 0
    for size in sizes:
        positions = torch.arange(start, start + size)
        logits.append(model(tokens[:, start : start + size], positions, caches))
        start += size
    return torch.cat(logits, dim=1)


def test_every_split_of_a_prompt_gives_the_uncached_logits(either, tokens):
    """Catches a second chunk that sees the future or nothing of the past, and positions that start again at 0."""
    with torch.inference_mode():
        expected = either(tokens)
    for first in range(1, 40):
        found = in_chunks(either, tokens, (first, 40 - first), either.make_caches(2, 53))
        assert relative_difference(found, expected) < 1e-5, first


@pytest.mark.parametrize("size", [1, 3, 8, 40])
def test_every_chunk_size_gives_the_uncached_logits(either, tokens, size):
    """Catches a mask or a rotation that is right for one token, or for one chunk, only."""
    sizes = [size] * (40 // size) + [40 % size] * (40 % size > 0)
    with torch.inference_mode():
        expected = either(tokens)
    found = in_chunks(either, tokens, sizes, either.make_caches(2, 40))
    assert relative_difference(found, expected) < 1e-5


def test_an_earlier_and_longer_text_in_the_caches_does_not_show(model, tokens):
    """Catches attention to slots beyond the current position: they hold leftovers, not zeros."""
    caches = model.make_caches(2, 60)
    in_chunks(model, torch.randint(model.config.vocab_size, (2, 60)), [60], caches)
    found = in_chunks(model, tokens, (17, 1, 22), caches)
    with torch.inference_mode():
        assert relative_difference(found, model(tokens)) < 1e-5


def _position_starts_again(monkeypatch):
    rotation = dl.rope_rotation
    monkeypatch.setattr(
        "decoding_llama3.transformer.rope_rotation",
        lambda freqs, positions: rotation(freqs, positions - positions[0]),
    )


def _square_mask(monkeypatch):
    mask = dl.causal_mask
    monkeypatch.setattr(
        "decoding_llama3.transformer.causal_mask", lambda positions, length: mask(positions - positions[0], length)
    )


def _no_mask(monkeypatch):
    monkeypatch.setattr(
        "decoding_llama3.transformer.causal_mask",
        lambda positions, length: torch.ones(len(positions), length, dtype=torch.bool),
    )


def _unwritten_cache(monkeypatch):
    monkeypatch.setattr(dl.KVCache, "update", lambda self, positions, keys, values: (self.keys, self.values))


@pytest.mark.parametrize(
    "fault", [_position_starts_again, _square_mask, _no_mask, _unwritten_cache], ids=lambda fault: fault.__name__
)
def test_a_fault_of_the_cached_path_is_seen(fault, model, tokens, monkeypatch):
    """Each of these runs without an error; only the comparison with the uncached logits tells."""
    with torch.inference_mode():
        expected = model(tokens)
    fault(monkeypatch)
    assert relative_difference(in_chunks(model, tokens, (17, 23), model.make_caches(2, 53)), expected) > 1e-2


def test_default_positions_count_from_zero(model, tokens):
    assert torch.equal(model(tokens), model(tokens, torch.arange(40)))


def test_only_distances_matter_and_they_do(model, tokens):
    """Catches positions that never arrive, and an absolute position that leaks in beside RoPE."""
    with torch.inference_mode():
        plain, shifted, stretched = (
            model(tokens, positions)
            for positions in (torch.arange(40), torch.arange(40) + 1000, torch.arange(40) * 50)
        )
    assert relative_difference(shifted, plain) < 1e-4  # float32 angles of 1,000 radians: 6e-5 each
    assert relative_difference(stretched, plain) > 1e-2


def test_the_future_never_changes_the_past(model, tokens):
    """Catches a norm or a softmax taken over the sequence, and a mask with the wrong diagonal."""
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % model.config.vocab_size
    with torch.inference_mode():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert relative_difference(after[:, 20:], before[:, 20:]) > 1e-2


def test_rows_of_a_batch_do_not_meet(model, tokens):
    with torch.inference_mode():
        both, alone = model(tokens), model(tokens[1:])
    assert relative_difference(both[1:], alone) < 1e-5
    assert relative_difference(both[:1], alone) > 1e-2


def test_logits_are_the_output_of_the_hidden_state(model, tokens):
    """What a prefill relies on when it asks `output` for the last row alone."""
    with torch.inference_mode():
        hidden, logits = model.hidden(tokens), model(tokens)
        assert hidden.shape == (2, 40, model.config.dim)
        assert torch.equal(model.output(hidden).float(), logits)
        assert relative_difference(model.output(hidden[:, -1]), logits[:, -1]) < 1e-6


def test_the_hidden_state_is_normalised_last(model, tokens):
    """Catches a dropped final norm: without its weight every row has a root mean square of 1."""
    with torch.inference_mode():
        hidden = model.hidden(tokens) / model.norm.weight
    torch.testing.assert_close(hidden.square().mean(-1), torch.ones(2, 40), rtol=1e-4, atol=0)


def test_the_second_residual_starts_from_the_first():
    """Catches x + ffn(norm(h)), which drops what attention wrote, and norms that are exchanged or come after."""
    block = randomize(dl.TransformerBlock(shrink("llama3-8b")))
    x, positions = torch.randn(2, 7, 192), torch.arange(7)
    rotation = dl.rope_rotation(dl.rope_frequencies(16, 500_000.0), positions)
    found = block(x, positions, rotation)

    def norm(x, weight):
        return torch.nn.functional.rms_norm(x, (192,), weight, 1e-5)

    h = x + block.attention(norm(x, block.attention_norm.weight), positions, rotation)
    assert relative_difference(found, h + block.feed_forward(norm(h, block.ffn_norm.weight))) < 1e-6


def test_every_weight_takes_part(either, tokens):
    """Catches a weight that is made and never applied, and a gradient that is cut off."""
    either(tokens).logsumexp(-1).mean().backward()
    assert all(weight.grad.abs().max() > 0 for weight in either.parameters())


def test_caches_without_positions_are_refused(model, tokens):
    """Else every step would be taken for the first."""
    with pytest.raises(ValueError, match="caches came without positions: pass each token's absolute position"):
        model(tokens, caches=model.make_caches(2, 40))


def test_fewer_caches_than_layers_are_refused(model, tokens):
    with pytest.raises(ValueError, match="found 1 caches for 2 layers: pass one each"):
        model(tokens, torch.arange(40), model.make_caches(2, 40)[:1])


def test_a_cache_too_short_for_its_positions_is_refused(model, tokens):
    """Catches a write that wraps round or is dropped without a word."""
    with pytest.raises(IndexError, match="out of bounds"):
        model(tokens, torch.arange(40), model.make_caches(2, 39))


@pytest.mark.parametrize(
    ("wrong", "positions"),
    [
        (lambda tokens: tokens.float(), None),
        (lambda tokens: tokens > 3, None),
        (lambda tokens: tokens[0], None),
        (lambda tokens: tokens[0], torch.arange(40)),
        (lambda tokens: tokens.tolist(), None),
        (lambda tokens: tokens, torch.arange(39)),
        (lambda tokens: tokens, torch.arange(40)[None]),
    ],
    ids=["float", "bool", "one axis", "one axis and positions", "list", "positions missing", "positions a row"],
)
def test_wrong_inputs_never_pass_in_silence(wrong, positions, model, tokens):
    with pytest.raises(WRONG_TYPE):
        model(wrong(tokens), positions)


def test_caches_are_where_and_what_the_weights_are(either):
    """Catches a cache in float32 beside bfloat16 weights: twice the memory, and a refused write."""
    caches = either.to(torch.bfloat16).make_caches(batch=2, length=7)
    config = either.config
    shape = (2, config.n_kv_heads, 7, config.head_dim)
    assert [(c.keys.shape, c.keys.dtype) for c in caches] == [(shape, torch.bfloat16)] * config.n_layers
    assert len({cache.keys.data_ptr() for cache in caches}) == config.n_layers
    stored = sum(buffer.nbytes for cache in caches for buffer in cache.buffers())
    assert stored == config.kv_cache_bytes(seq_len=7, batch=2)


def test_logits_are_float32_and_the_rest_is_not(model, tokens):
    model.to(torch.bfloat16)
    assert model.hidden(tokens).dtype == torch.bfloat16
    assert model(tokens).dtype == torch.float32


def test_the_state_is_weights_and_nothing_else(either):
    """Catches a stored RoPE table, mask or cache: Meta's and Hugging Face's checkpoints have none."""
    assert list(either.state_dict()) == [name for name, _ in either.named_parameters(remove_duplicate=False)]
    assert list(either.buffers()) == []


def test_rope_survives_bfloat16(either, tokens):
    """Weights may be rounded, frequencies may not: in bfloat16 they are radians wrong at position 9,000."""
    rounded = copy.deepcopy(either)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.bfloat16())
    there_and_back = either.to(torch.bfloat16).to(torch.float32)
    positions = 9000 + 173 * torch.arange(40)
    with torch.inference_mode():
        assert torch.equal(there_and_back(tokens, positions), rounded(tokens, positions))


def test_bfloat16_costs_no_more_than_its_rounding_at_far_positions(model, tokens):
    """Catches frequencies or positions rounded on the way to the angle: in bfloat16 256 and 257 are one."""
    positions = 9000 + 173 * torch.arange(40)
    with torch.inference_mode():
        exact = model(tokens, positions)
        found = model.to(torch.bfloat16)(tokens, positions)
    assert relative_difference(found, exact) < 0.05


def test_tied_embeddings_are_one_tensor():
    model = dl.Transformer(shrink("llama3.2-1b"))
    for same in (model, copy.deepcopy(model), model.to(torch.bfloat16)):
        assert same.output.weight is same.tok_embeddings.weight
    model = dl.Transformer(shrink("llama3-8b"))
    assert model.output.weight is not model.tok_embeddings.weight


def test_the_meta_device_gives_shapes_without_memory():
    """The 405B, its logits and its caches: 812 GB of weights, nothing stored."""
    config = dl.LlamaConfig.from_preset("llama3.1-405b")
    with torch.device("meta"):
        model = dl.Transformer(config)
        tokens, positions = torch.zeros(1, 5, dtype=torch.int64), torch.arange(5)
        assert all(weight.is_meta for weight in model.parameters())
        assert model(tokens).shape == (1, 5, 128_256)
    caches = model.make_caches(1, 16)
    assert caches[0].keys.is_meta
    assert model(tokens, positions, caches).shape == (1, 5, 128_256)


def test_no_layer_has_a_bias(model):
    assert [name for name in model.state_dict() if not name.endswith(".weight")] == []
