"""Generation: what is chosen, where it ends, and what it refuses before the first token."""

import pytest
import torch
from conftest import relative_difference
from transformers import TopPLogitsWarper

import decoding_llama3 as dl
from decoding_llama3.inference import generator
from decoding_llama3.inference.generator import Decoder, sample

PROMPT = [5, 77, 130, 9, 64]


def test_greedy_is_the_argmax_of_a_model_without_cache(model):
    tokens = list(PROMPT)
    for _ in range(30):
        tokens.append(model(torch.tensor([tokens]))[0, -1].argmax().item())
    assert list(dl.generate(model, PROMPT, max_new_tokens=30)) == tokens[5:]


def test_a_prompt_read_in_chunks_is_the_prompt(model, monkeypatch):
    """Catches a chunk at the wrong positions, a cache that loses what it held when it grows, and a wrong mask."""
    prompt = torch.randint(320, (1, 100))
    expected = model(prompt)[0, -1]
    for chunk, bucket in ((100, 256), (32, 8), (32, 1), (7, 64), (1, 16)):
        monkeypatch.setattr(generator, "CHUNK", chunk)
        monkeypatch.setattr(generator, "BUCKET", bucket)
        decoder = Decoder(model)
        assert relative_difference(decoder.read(prompt[:, :60]), model(prompt[:, :60])[0, -1]) < 1e-5
        assert relative_difference(decoder.read(prompt[:, 60:]), expected) < 1e-5
        assert decoder.n_read == 100


def test_the_cache_grows_with_the_text_and_not_with_the_context(model):
    decoder = Decoder(model)
    decoder.read(torch.tensor([PROMPT]))
    assert {cache.keys.shape[2] for cache in decoder.caches} == {5}  # the prompt's own: no mask is needed
    for length in (256, 256):
        decoder.read(torch.tensor([[3]]))
        assert {cache.values.shape[2] for cache in decoder.caches} == {length}
    decoder.read(torch.tensor([[3] * 250]))
    assert {cache.keys.shape[2] for cache in decoder.caches} == {512}


def test_a_prompt_makes_no_mask_and_no_logits_but_the_last(model, monkeypatch):
    """8,192 prompt tokens over 128,256 of the vocabulary would take 4 GB."""
    monkeypatch.setattr(
        "decoding_llama3.transformer.causal_mask", lambda *_: pytest.fail("a whole sequence needs no mask")
    )
    shapes = []
    model.output.register_forward_hook(lambda module, inputs, result: shapes.append(tuple(result.shape)))
    Decoder(model).read(torch.tensor([PROMPT * 20]))
    assert shapes == [(1, 320)]


def test_a_seed_fixes_the_tokens(model):
    def draw(seed):
        return list(dl.generate(model, PROMPT, max_new_tokens=30, temperature=1.0, seed=seed))

    assert draw(1) == draw(1) != draw(2)


def test_a_seed_is_untouched_by_the_global_one(model):
    stream = dl.generate(model, PROMPT, max_new_tokens=9, temperature=1.0, seed=1)
    drawn = [next(stream)]
    torch.manual_seed(99)
    drawn += stream
    assert drawn == list(dl.generate(model, PROMPT, max_new_tokens=9, temperature=1.0, seed=1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_that_temperature(temperature):
    logits, n = torch.tensor([2.0, 1.0, 0.0, -1.0]), 20_000
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([sample(logits, temperature, 1.0, generator) for _ in range(n)])
    share = torch.bincount(drawn, minlength=4) / n
    expected = (logits / temperature).softmax(0)
    # Five standard errors of a share: a false alarm once in a million runs, and the seed is fixed.
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all()


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.62, 0.9, 0.999])
def test_top_p_draws_from_the_set_that_transformers_keeps(top_p):
    logits = torch.randn(40, generator=torch.Generator().manual_seed(3))
    kept = TopPLogitsWarper(top_p)(None, logits[None])[0].isfinite().nonzero().flatten()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([sample(logits, 3.0, 1.0, generator) for _ in range(5000)])
    assert len(drawn.unique()) == 40  # all would come, were they not cut
    drawn = torch.cat([sample(logits, 1.0, top_p, generator) for _ in range(5000)])
    assert set(drawn.tolist()) <= set(kept.tolist())
    likely = logits.softmax(0)[kept] > 0.002
    assert set(kept[likely].tolist()) <= set(drawn.tolist())


def test_the_most_probable_token_is_always_left():
    assert sample(torch.tensor([0.0, 9.0, 0.0]), 1.0, 1e-9, None).item() == 1


def test_a_stop_token_ends_the_text_and_is_not_part_of_it(model):
    tokens = list(dl.generate(model, PROMPT, max_new_tokens=20))
    stop = tokens[7]
    assert list(dl.generate(model, PROMPT, max_new_tokens=20, stop_ids=[stop])) == tokens[: tokens.index(stop)]


def test_it_ends_when_the_context_is_full():
    model = dl.load_model("tiny", dtype=torch.float32)
    prompt = [300] * 500
    tokens = list(dl.generate(model, prompt, max_new_tokens=64))
    assert len(tokens) == 13  # 12 that fit, and the one that is never read
    assert len(list(dl.generate(model, [300] * 512))) == 1


def test_no_tokens_may_be_asked_for(model):
    assert list(dl.generate(model, PROMPT, max_new_tokens=0)) == []


def test_a_tensor_is_a_prompt_too(model):
    listed = list(dl.generate(model, PROMPT, max_new_tokens=5))
    assert list(dl.generate(model, torch.tensor(PROMPT), max_new_tokens=5)) == listed


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ([], {}, "the prompt is empty"),
        ([3, 320], {}, "token id 320 is outside the model's 0 to 319"),
        ([3, -1], {}, "token id -1 is outside"),
        ([1] * 8193, {}, "the prompt has 8193 tokens, the model's context 8192"),
        (PROMPT, {"temperature": -0.1}, "temperature must be 0 .* found -0.1"),
        (PROMPT, {"temperature": float("nan")}, "temperature must be 0 .* found nan"),
        (PROMPT, {"top_p": 0.0}, "top_p must be above 0 and at most 1, found 0.0"),
        (PROMPT, {"top_p": 1.5}, "top_p must be above 0 and at most 1, found 1.5"),
        (PROMPT, {"max_new_tokens": -1}, "max_new_tokens must be 0 or more, found -1"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(model, prompt, options, words):
    with pytest.raises(ValueError, match=words):
        dl.generate(model, prompt, **options)  # not consumed: the error must not wait for the first token


def test_text_is_no_prompt(model):
    with pytest.raises(TypeError, match="encode text first"):
        dl.generate(model, "Once upon a time")
