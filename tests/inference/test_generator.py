"""Generation: what is chosen, where it ends, and what it refuses before the first token."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import randomize, relative_difference, shrink
from transformers import TopPLogitsWarper

import decoding_llama3 as dl
from decoding_llama3.inference import generator
from decoding_llama3.inference.compile import NO_COMPILER
from decoding_llama3.inference.generator import Generator, _to_host
from decoding_llama3.inference.sampling import sample

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
        reader = Generator(model)
        assert relative_difference(reader.read(prompt[:, :60]), model(prompt[:, :60])[0, -1]) < 1e-5
        assert relative_difference(reader.read(prompt[:, 60:]), expected) < 1e-5
        assert reader.past == prompt[0].tolist()


def test_the_caches_are_made_once_for_the_length_that_is_wanted(model, monkeypatch):
    made = []
    make = dl.Transformer.make_caches
    monkeypatch.setattr(dl.Transformer, "make_caches", lambda self, *size: made.append(size) or make(self, *size))
    reader = Generator(model)
    first = list(reader.generate(PROMPT, 300))
    assert made == [(1, 512)]
    assert list(reader.generate(PROMPT, 300)) == first
    list(reader.generate(PROMPT * 10, 100))
    assert made == [(1, 512)]
    list(reader.generate(PROMPT, 600))
    assert made == [(1, 512), (1, 1024)]
    assert Generator(model, length=700).length == 768


def test_a_text_that_outgrows_its_caches_doubles_them(model):
    reader = Generator(model, length=256)
    tokens = torch.randint(320, (1, 600), generator=torch.Generator().manual_seed(0))
    lengths = []
    for part in tokens.split(100, dim=1):
        logits = reader.read(part)
        lengths.append(reader.length)
    assert lengths == [256, 256, 512, 512, 512, 1024]
    assert relative_difference(logits, model(tokens)[0, -1]) < 1e-5


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of itself
def test_compiled_code_on_a_cpu_reads_no_slots_that_the_text_does_not_need_yet(model):
    """It reads all of a cache for each token: a limit of 600 tokens must not make the first ones slower."""
    reader = Generator(model, compile=True, length=1024, report=lambda line: None)
    eager = list(Generator(model).generate(PROMPT, 600))
    lengths = [(reader.length, token) for token in reader.generate(PROMPT, 600)]
    assert [token for _, token in lengths] == eager
    assert lengths[0][0] == 256
    assert lengths[300 - len(PROMPT)][0] == 512
    assert reader.length == 768
    assert next(reader.generate(PROMPT, 600)) == eager[0]
    assert reader.length == 256


def test_a_large_limit_takes_no_memory_before_it_is_needed():
    """ "Until it stops" must not allocate the cache of a whole context of 131,072 tokens."""
    config = dataclasses.replace(shrink("llama3.1-8b"), n_layers=1)
    model = randomize(dl.Transformer(config).requires_grad_(False))
    reader = Generator(model)
    stream = reader.generate(PROMPT, 10**9)
    next(stream)
    assert reader.length == 8192


def test_a_conversation_reads_only_what_is_new(model, monkeypatch):
    reader, read = Generator(model), []
    answer = list(reader.generate(PROMPT, 8))
    prompt = [*PROMPT, *answer, 17, 4]
    expected = list(dl.generate(model, prompt, 8))
    hidden = dl.Transformer.hidden
    monkeypatch.setattr(
        dl.Transformer,
        "hidden",
        lambda self, tokens, *rest: read.append(tokens.shape[1]) or hidden(self, tokens, *rest),
    )
    assert list(reader.generate(prompt, 8, keep=True)) == expected
    assert read == [3, *[1] * 7]  # the last token of the answer, which was quoted but not read, and the new ones
    read.clear()
    other = [*PROMPT, 9, *answer]
    assert list(reader.generate(other, 3, keep=True)) == list(dl.generate(model, other, 3))
    assert read[:3] == [9, 1, 1]
    read.clear()
    assert list(reader.generate(prompt, 2)) == expected[:2]
    assert read == [len(prompt), 1]  # without `keep` all is read


def test_the_same_prompt_again_is_asked_for_its_last_token(model):
    reader = Generator(model)
    first = list(reader.generate(PROMPT, 5))
    assert list(reader.generate(PROMPT, 5, keep=True)) == first


def test_a_text_left_in_the_middle_does_not_disturb_the_next(model):
    reader = Generator(model)
    stream = reader.generate(PROMPT, 50)
    begun = [next(stream) for _ in range(5)]
    stream.close()
    assert reader.past == [*PROMPT, *begun[:4]]
    assert list(reader.generate([8, 9], 6)) == list(dl.generate(model, [8, 9], 6))


def test_caches_follow_a_model_that_was_cast_or_cut():
    model = randomize(dl.Transformer(shrink("llama3-8b")).requires_grad_(False))
    reader = Generator(model)
    list(reader.generate(PROMPT, 5))
    for change in (
        lambda: model.bfloat16(),
        lambda: model.float(),
        lambda: setattr(model, "layers", model.layers[:1]),
    ):
        change()
        assert list(reader.generate(PROMPT, 5, keep=True)) == list(dl.generate(model, PROMPT, 5))


def test_a_prompt_makes_no_mask_and_no_logits_but_the_last(model, monkeypatch):
    """8,192 prompt tokens over 128,256 of the vocabulary would take 4 GB."""
    monkeypatch.setattr(
        "decoding_llama3.transformer.causal_mask", lambda *_: pytest.fail("a whole sequence needs no mask")
    )
    shapes = []
    model.output.register_forward_hook(lambda module, inputs, result: shapes.append(tuple(result.shape)))
    Generator(model).read(torch.tensor([PROMPT * 20]))
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


@pytest.mark.parametrize(
    "kind",
    [torch.tensor, np.array, tuple, lambda ids: list(np.array(ids)), lambda ids: iter(ids)],
    ids=["tensor", "array", "tuple", "numbers of an array", "iterator"],
)
def test_ids_may_come_in_any_sequence(kind, model):
    expected = list(dl.generate(model, PROMPT, 5))
    assert list(dl.generate(model, kind(PROMPT), 5)) == expected
    assert (
        list(dl.generate(model, PROMPT, 5, stop_ids=kind([expected[3]])))
        == expected[: expected.index(expected[3])]
    )


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor])
def test_one_number_is_a_stop_id(kind, model):
    expected = list(dl.generate(model, PROMPT, 9, temperature=1.0, seed=3))
    stopped = list(dl.generate(model, PROMPT, 9, temperature=1.0, seed=3, stop_ids=kind(expected[3])))
    assert stopped == expected[: expected.index(expected[3])]


@pytest.mark.parametrize("temperature", [1e-38, 1e-40, 1e-45, 1e-300, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature, model):
    greedy = list(dl.generate(model, PROMPT, 9))
    assert list(dl.generate(model, PROMPT, 9, temperature=temperature, seed=1)) == greedy


def test_top_p_of_one_keeps_every_token_and_does_not_sort(monkeypatch):
    """A running sum of 128,256 probabilities passes 1 by rounding, and what came after it was never drawn."""
    monkeypatch.setattr(torch.Tensor, "sort", lambda *_, **__: pytest.fail("sorted"))
    logits, n = torch.zeros(64), 3000
    draws = torch.Generator().manual_seed(0)
    assert len({sample(logits, 1.0, 1.0, draws).item() for _ in range(n)}) == 64


def test_a_draw_is_that_of_torch_multinomial():
    logits = torch.randn(500, generator=torch.Generator().manual_seed(5))
    ours, theirs = (torch.Generator().manual_seed(1) for _ in range(2))
    for _ in range(50):
        assert sample(logits, 0.7, 1.0, ours) == torch.multinomial((logits / 0.7).softmax(0), 1, generator=theirs)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}])
def test_logits_that_are_not_finite_are_refused(options, model):
    reader = Generator(model)
    expected = list(reader.generate(PROMPT, 4))
    weight = model.norm.weight.detach().clone()
    model.norm.weight.data[3] = float("nan")
    with pytest.raises(ValueError, match="the model's logits are not finite: its weights are damaged"):
        list(reader.generate(PROMPT, 4, **options))
    model.norm.weight.data.copy_(weight)
    assert list(reader.generate(PROMPT, 4)) == expected


def test_a_model_without_weights_is_refused():
    with torch.device("meta"):
        model = dl.Transformer(shrink("llama3-8b"))
    with pytest.raises(ValueError, match="shapes alone and no weights: load it on a device such as 'cpu'"):
        dl.generate(model, PROMPT)


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ([], {}, "the prompt is empty"),
        ([3, 320], {}, "token id 320 in the prompt is outside the model's 0 to 319"),
        ([3, -1], {}, "token id -1 in the prompt is outside"),
        ([1] * 8193, {}, "the prompt has 8193 tokens, the model's context 8192"),
        (PROMPT, {"temperature": -0.1}, "temperature must be 0 .* found -0.1"),
        (PROMPT, {"temperature": float("nan")}, "temperature must be 0 .* found nan"),
        (PROMPT, {"top_p": 0.0}, "top_p must be above 0 and at most 1, found 0.0"),
        (PROMPT, {"top_p": 1.5}, "top_p must be above 0 and at most 1, found 1.5"),
        (PROMPT, {"temperature": float("inf")}, "temperature must be 0 .* found inf"),
        (PROMPT, {"max_new_tokens": -1}, "max_new_tokens must be 0 or more, found -1"),
        (PROMPT, {"seed": 2**64}, "a seed has at most 64 bits, found 18446744073709551616"),
        (PROMPT, {"seed": -(2**63) - 1}, "a seed has at most 64 bits"),
        (PROMPT, {"stop_ids": [320]}, "token id 320 in stop_ids is outside the model's 0 to 319"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(model, prompt, options, words):
    with pytest.raises(ValueError, match=words):
        dl.generate(model, prompt, **options)  # not consumed: the error must not wait for the first token


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        (
            "Once upon a time",
            {},
            "the prompt is text, found 'Once upon a time': encode it with the model's tokenizer",
        ),
        ([True, 5], {}, "each id of the prompt is a whole number, found True"),
        ([1.5], {}, "each id of the prompt is a whole number, found 1.5"),
        (torch.tensor([0.5]), {}, "each id of the prompt is a whole number, found 0.5"),
        (torch.tensor([True]), {}, "each id of the prompt is a whole number, found True"),
        ([None], {}, "each id of the prompt is a whole number, found None"),
        (
            [PROMPT],
            {},
            r"the prompt has the ids of one text, found \[5, 77.* in it: pass one row, such as ids\[0\]",
        ),
        (torch.tensor([PROMPT]), {}, "pass one row"),
        (np.array([PROMPT]), {}, "pass one row"),
        (PROMPT, {"stop_ids": ["<|end_of_text|>"]}, "each id of stop_ids is a whole number, found '<|end_of"),
        (PROMPT, {"stop_ids": "<|end_of_text|>"}, "stop_ids is text"),
        (PROMPT, {"temperature": "0.8"}, "temperature is a number, found '0.8'"),
        (PROMPT, {"temperature": None}, "temperature is a number, found None"),
        (PROMPT, {"temperature": True}, "temperature is a number, found True"),
        (PROMPT, {"top_p": "0.9"}, "top_p is a number, found '0.9'"),
        (PROMPT, {"max_new_tokens": 2.5}, "max_new_tokens is a whole number, found 2.5"),
        (PROMPT, {"max_new_tokens": "3"}, "max_new_tokens is a whole number, found '3'"),
        (PROMPT, {"max_new_tokens": True}, "max_new_tokens is a whole number, found True"),
        (PROMPT, {"seed": "7"}, "a seed is a whole number, found '7'"),
        (PROMPT, {"seed": 1.5}, "a seed is a whole number, found 1.5"),
        (PROMPT, {"seed": True}, "a seed is a whole number, found True"),
    ],
)
def test_arguments_of_another_type_are_refused_at_the_call(model, prompt, options, words):
    with pytest.raises(TypeError, match=words):
        dl.generate(model, prompt, **options)


@pytest.mark.parametrize("number", [np.int64(3), np.float32(0.7), np.float64(0.7)])
def test_numbers_of_numpy_are_numbers(number, model):
    options = (
        {"max_new_tokens": number, "seed": number}
        if isinstance(number, np.int64)
        else {"temperature": number, "top_p": number, "seed": 1}
    )
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in options.items()}
    assert list(dl.generate(model, PROMPT, **options)) == list(dl.generate(model, PROMPT, **plain))


@pytest.mark.parametrize(
    ("tokens", "words"), [([320], "token id 320"), ([1] * 8190, "after 5 others, the model's context 8192")]
)
def test_what_is_read_is_checked_like_a_prompt(tokens, words, model):
    """On a GPU an id outside the vocabulary ends all work of the process; here it is a sentence on any device."""
    reader = Generator(model)
    reader.read(torch.tensor([PROMPT]))
    with pytest.raises(ValueError, match=words):
        reader.read(torch.tensor([tokens]))
    assert reader.past == PROMPT


@pytest.mark.parametrize("compile", [None, False, True])
def test_it_compiles_only_if_asked(compile, model, monkeypatch):
    asked = []

    class Recorded(Generator):
        def __init__(self, model, compile, **options):
            asked.append(compile)
            super().__init__(model, False, **options)

    monkeypatch.setattr("decoding_llama3.inference.generator.Generator", Recorded)
    list(dl.generate(model, [1, 2], 1, **({} if compile is None else {"compile": compile})))
    assert asked == [bool(compile)]


@pytest.mark.parametrize("there", [False, True])
def test_it_says_that_it_cannot_compile_only_if_it_cannot(there, model, monkeypatch):
    monkeypatch.setattr("decoding_llama3.inference.generator.can_compile", lambda device: there)
    said = []
    generator = Generator(model, compile=True, report=said.append)
    assert said == ([] if there else [NO_COMPILER])
    assert generator.compile is there


def test_a_token_of_a_card_is_read_only_after_it_has_arrived(monkeypatch):
    """Catches a token that is looked at while its copy is still on the way: any number may stand there."""
    calls = []

    class Host:
        def copy_(self, token, non_blocking):
            calls.append("copy" if non_blocking else "wait for the copy")

        def item(self):
            calls.append("item")
            return 7

    class Event:
        def record(self):
            calls.append("record")

        def synchronize(self):
            calls.append("synchronize")

    monkeypatch.setattr(torch, "empty", lambda *shape, dtype, pin_memory: Host())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    arriving = _to_host(SimpleNamespace(device=torch.device("cuda"), dtype=torch.int64))
    assert calls == ["copy", "record"]
    assert arriving() == 7
    assert calls == ["copy", "record", "synchronize", "item"]
