"""Plans: what cannot be measured is refused, or left out and reported, before anything is measured."""

import pytest

from decoding_llama3.benchmark import huggingface
from decoding_llama3.benchmark.plan import make_plan
from decoding_llama3.inference import compile


def test_lengths_that_do_not_fit_are_left_out_and_reported():
    lines = []
    plan = make_plan(prompts=(2048, 512, 128), contexts=(128, 446, 445), new_tokens=64, report=lines.append)
    assert (plan.prompts, plan.contexts) == ((128, 512), (128, 445))  # 512 hold 445 + 3 to warm up + 64
    assert lines == [
        "prompts of 2048 tokens are left out: 512 fit this model",
        "contexts of 446 tokens are left out: 445 fit this model",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": (600,)}, "none of the prompts 600 fits: take 512 tokens or fewer"),
        ({"contexts": (0,)}, "contexts have 1 token or more, found 0"),
        ({"engines": ("eager", "fast")}, "no engine is called 'fast'; there are eager, compiled, int8"),
        ({"against": "vllm"}, r"no baseline is called 'vllm'; there are huggingface \(both\), huggingface-eager"),
        ({"source": "nowhere"}, "nowhere"),
        ({"source": "9b", "random": True}, "no preset is called '9b'"),
        ({"device": "abacus"}, "device 'abacus' cannot be used here"),
        ({"runs": 0}, "runs must be 1 or more, found 0"),
        ({"new_tokens": 0}, "new tokens must be from 1 to 508 with this model, found 0"),
        ({"new_tokens": 600}, "new tokens must be from 1 to 508 with this model, found 600"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_at_once(options, words):
    with pytest.raises(ValueError, match=words):
        make_plan(**options)


def test_without_a_compiler_only_eager_engines_are_measured(monkeypatch):
    monkeypatch.setattr(compile, "find_compiler", lambda: None)
    lines = []
    assert make_plan(against="huggingface", report=lines.append).engines == ("eager", "huggingface-eager")
    assert "int8 is left out: it needs a C++ compiler, g++ or clang" in lines
    with pytest.raises(ValueError, match="no engine is left to measure: install g\\+\\+ or clang"):
        make_plan(engines=("int8",), report=lines.append)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, r"pip install 'decoding-llama3\[test\]'"),
        ("4.57", "5.4 or newer, found 4.57"),
        ("5.3.0", "5.4 or newer, found 5.3"),
    ],
)
def test_a_comparison_without_transformers_says_how_to_get_it(monkeypatch, found, words):
    monkeypatch.setattr(huggingface, "version", lambda package: found)
    with pytest.raises(ValueError, match=words):
        make_plan(against="huggingface")


def test_a_checkpoint_of_metas_is_not_given_to_transformers(tmp_path):
    (tmp_path / "params.json").write_text(
        '{"dim": 64, "n_layers": 1, "n_heads": 4, "vocab_size": 99, "multiple_of": 8, "norm_eps": 1e-5}'
    )
    with pytest.raises(ValueError, match="Meta's layout, which transformers cannot read"):
        make_plan(str(tmp_path), against="huggingface", prompts=(8,), contexts=(8,), new_tokens=1)
