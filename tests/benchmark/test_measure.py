"""Speeds, against a clock that we move, and against Hugging Face's model."""

import pytest
import torch
from conftest import randomize, shrink

import decoding_llama3 as dl
from decoding_llama3.benchmark import clock
from decoding_llama3.benchmark.engines import Engine, our_engine
from decoding_llama3.benchmark.huggingface import checkpoint_engine, random_engine
from decoding_llama3.benchmark.limits import Limits
from decoding_llama3.benchmark.measure import make_prompt, measure_engine, read_greedily, with_speeds
from decoding_llama3.benchmark.models import preset_config
from decoding_llama3.benchmark.work import count_flops, tensor_bytes
from decoding_llama3.inference import compile as compile_file
from decoding_llama3.inference.checkpoint.export import save_huggingface

LIMITS = Limits(read_bytes_per_s=1e9, read_by="sum", copy_bytes_per_s=1e9, flops_per_s=1e12)


class Slow:
    """Takes two seconds per token of a prompt, and for single tokens what it is given."""

    def __init__(self, seconds: list[float], steps: list[float]) -> None:
        self.seconds, self.steps = seconds, iter(steps)

    def read(self, tokens):
        self.seconds[0] += 2.0 * tokens.shape[1] if tokens.shape[1] > 1 else next(self.steps)
        return torch.arange(10.0)


def test_speeds_are_those_of_the_clock_and_fractions_of_the_limits(monkeypatch, model):
    """Steps: three to warm up, then 1, 7, 1, 7, 1 seconds; their median is 1, their mean is not."""
    started, seconds = [], [0.0]
    monkeypatch.setattr(clock, "now", lambda device: seconds[0])

    def start(context, max_new):
        started.append((context, max_new))
        return Slow(seconds, [50.0, 50.0, 50.0, 1.0, 7.0, 1.0, 7.0, 1.0] if context else [30.0] + 63 * [1.0])

    config, engine = model.config, Engine(start, weight_bytes=10_000_000)
    so_far = [
        (found, list(found["prefill"]), list(found["decode"]))
        for found in measure_engine(engine, config, "cpu", (5, 9), (6,), new_tokens=5)
    ]
    assert [lengths for _, *lengths in so_far] == [[[], []], [["5"], []], [["5", "9"], []], [["5", "9"], ["6"]]]
    measured = so_far[-1][0]
    assert (measured["first_token"], measured["first_step"]) == (10.0, 30.0)
    assert measured["greedy"] == [9] * 64
    assert {(0, 5 + 64), (0, 5), (0, 9), (6, 64)} == set(started)
    found = with_speeds(measured, engine.weight_bytes, config, torch.float32, LIMITS)
    assert {n: speed["tokens_per_s"] for n, speed in found["prefill"].items()} == {"5": 0.5, "9": 0.5}
    assert found["prefill"]["9"]["fraction"] == pytest.approx(count_flops(config, 9) / 18.0 / 1e12)
    assert found["decode"]["6"]["tokens_per_s"] == 1.0
    cache = 6 * 2 * 2 * 48 * 4  # tokens, layers, keys and values, features, bytes
    assert found["decode"]["6"]["fraction"] == pytest.approx((10_000_000 + cache) / 1e9)


@pytest.fixture
def checkpoint(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3-8b"))), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("compile", [False, True])
def test_logits_equal_hugging_faces_after_a_prompt_and_after_a_context(checkpoint, compile, monkeypatch):
    """After a context of zeros too: a cache that was cut off or placed elsewhere would change the logits.

    torch.compile returns what it is given: this is no test of the compiler.
    """
    monkeypatch.setattr(torch, "compile", lambda function=None, **how: function or (lambda given: given))
    monkeypatch.setattr(compile_file, "_compiled", compile_file._compiled.__wrapped__)  # kept for no other test
    ours = our_engine(dl.load_model(checkpoint, dtype=torch.float32), compile)
    theirs = checkpoint_engine(checkpoint, "cpu", torch.float32, compile)
    prompt = make_prompt(dl.LlamaConfig.from_huggingface(checkpoint / "config.json"), 11, "cpu")
    for _ in range(2):  # twice: their static cache is used again
        texts = [
            [token for token, _ in read_greedily(engine.start(0, 11 + 30), prompt, 30, "cpu")]
            for engine in (ours, theirs)
        ]
        assert texts[0] == texts[1]
        assert len(set(texts[0])) > 5
    one = torch.tensor([[7]])
    sessions = [engine.start(300, 8) for engine in (ours, theirs)]
    for _ in range(3):
        torch.testing.assert_close(*(session.read(one) for session in sessions), rtol=1e-4, atol=1e-4)


def test_hugging_faces_compiled_step_reads_single_tokens_only(checkpoint, monkeypatch):
    seen = []

    def compile(function, **how):
        assert how["fullgraph"]
        return lambda tokens, **rest: seen.append(tokens.shape[1]) or function(tokens, **rest)

    monkeypatch.setattr(torch, "compile", compile)
    session = checkpoint_engine(checkpoint, "cpu", torch.float32, compile=True).start(0, 20)
    for n in (5, 1, 3, 1):
        session.read(torch.zeros(1, n, dtype=torch.int64))
    assert seen == [1, 1]


@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])  # untied; tied, with scaled RoPE
def test_a_random_baseline_has_the_shape_of_a_saved_model(preset, tmp_path):
    config = shrink(preset)
    save_huggingface(dl.Transformer(config), tmp_path)
    saved = checkpoint_engine(tmp_path, "cpu", torch.bfloat16, compile=False)
    made = random_engine(config, "cpu", torch.bfloat16, compile=False)
    assert made.weight_bytes == saved.weight_bytes
    models = [engine.start(0, 1).model for engine in (made, saved)]
    like = [{name: (t.shape, t.dtype) for name, t in model.state_dict().items()} for model in models]
    assert like[0] == like[1]
    assert tensor_bytes(models[0]) == tensor_bytes(models[1])
    torch.testing.assert_close(*(model.model.rotary_emb.inv_freq for model in models), rtol=0, atol=0)
    assert all(model.config.rms_norm_eps == config.norm_eps for model in models)
    assert made.start(0, 1).read(torch.tensor([[1, 2, 3]])).isfinite().all()


def test_a_prompt_is_the_same_at_each_call():
    config = preset_config("125m")
    prompt = make_prompt(config, 100, "cpu")
    assert torch.equal(prompt, make_prompt(config, 100, "cpu"))
    assert prompt.shape == (1, 100)
    assert len(set(prompt[0].tolist())) > 90
