"""Damaged params.json and config.json by the thousand: each is read as it stands, or refused in a sentence.

FUZZ=100000 sets the number of files of each kind.
"""

import json
import math
import os
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import LlamaConfig as HuggingFaceConfig
from transformers import MistralConfig
from transformers.utils import logging

import decoding_llama3 as dl

PARAMS = {
    "dim": 2048,
    "ffn_dim_multiplier": 1.5,
    "multiple_of": 256,
    "n_heads": 32,
    "n_kv_heads": 8,
    "n_layers": 16,
    "norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "use_scaled_rope": True,
    "vocab_size": 128256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 768,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": LLAMA3,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": 3840,
}
VERSION_5 = {key: value for key, value in CONFIG.items() if key not in ("rope_theta", "rope_scaling")}
LLAMA2 = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-05, "vocab_size": -1}
VALID = {
    "params.json": [PARAMS, LLAMA2],
    "config.json": [
        CONFIG,
        VERSION_5 | {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
        CONFIG | {"rope_scaling": None, "model_type": "mistral", "sliding_window": 4096},
    ],
}
VALUES = [None, True, False, 0, 1, -1, 2, 64, 8192, 2**31, 2**62, 2**70, 10**30, -(10**99), 10**100, 10**5000]
VALUES += [0.0, -0.0, 0.5, 1.0, 1e-5, 1e-320, 1e15, 1e300, math.inf, -math.inf, math.nan, 500000, 1e4]
VALUES += ["", "64", "false", "llama3", "default", "yarn", "\x1b[31m", "\ud800", "字" * 999, "x" * 10**5]
VALUES += [[], [1], {}, {"factor": 4}, LLAMA3, LLAMA3 | {"type": "llama3"}, {"full_attention": LLAMA3}, [[[[]]]]]
KEYS = ["rope_parameters", "rope_scaling", "rope_theta", "type", "rope_type", "factor", "partial_rotary_factor"]
KEYS += ["sliding_window", "use_sliding_window", "layer_types", "original_max_position_embeddings", "qk_norm"]
KEYS += ["logits_scaling", "mscale", "unsloth_version", "", "\x1b]0;title\x07", "\u202e", "字", "x" * 10**4]
KEYS += [*PARAMS, *CONFIG]
PIECES = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"NaN", b"-Infinity", b"1e999", b"\\u0000"]
PIECES += [b"\\ud800", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\x1b[31m", b"0", b"9" * 5000, b"[" * 2000, b"e"]
PIECES += [b'{"a":' * 2000]
SECONDS = 2  # processor time for one file; it takes about a millisecond


class Pairs(list):
    """The pairs of an object, in which a key may stand twice."""


def pairs_of(value: object) -> object:
    return Pairs((key, pairs_of(v)) for key, v in value.items()) if isinstance(value, dict) else value


def text_of(value: object) -> str:
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {text_of(v)}" for key, v in value) + "}"
    if isinstance(value, int) and abs(value) > 10**1000:
        return "9" * 5000
    return json.dumps(value)


def change_a_setting(content: Pairs, draw: Random) -> None:
    """At the top, or one level below it."""
    objects = [content, *(value for _, value in content if isinstance(value, Pairs))]
    pairs = draw.choice(objects)
    place = draw.randrange(len(pairs)) if pairs else 0
    key = pairs[place][0] if pairs else "empty"
    other = pairs_of(draw.choice(VALUES))
    change = draw.randrange(7)
    if change <= 1:
        pairs[place : place + 1] = [(key, other)]
    elif change == 2:
        del pairs[place : place + 1]
    elif change == 3:
        pairs.insert(draw.randint(0, len(pairs)), (key, other))
    elif change == 4:
        pairs.insert(place, (draw.choice(KEYS), other))
    elif change == 5:
        pairs[place : place + 1] = [(draw.choice(KEYS), pairs[place][1] if pairs else None)]
    else:
        pairs.insert(draw.randint(0, len(pairs)), draw.choice([*pairs, ("factor", 1)]))


def change_bytes(content: bytes, draw: Random) -> bytes:
    start = draw.randint(0, len(content))
    end = min(len(content), start + draw.choice([0, 1, 1, 2, 10, 100]))
    change = draw.randrange(6)
    if change == 0:
        return content[:start] + content[end:]
    if change == 1:
        return content[:end] + content[start:end] * draw.choice([1, 2, 100]) + content[end:]
    if change == 2:
        return content[:start] + draw.randbytes(end - start) + content[end:]
    if change == 3:
        return content[:start]
    if change == 4 and content.isascii():
        return content.decode("ascii").encode(draw.choice(["utf-16", "utf-16-le", "utf-8-sig", "utf-32"]))
    return content[:start] + draw.choice(PIECES) + content[end:]


def mutated(filename: str, seed: int) -> bytes:
    """One to four random changes of a valid file: settings, then for half of the files bytes too."""
    draw = Random(seed)
    content = pairs_of(draw.choice(VALID[filename]))
    for _ in range(draw.randint(0, 3)):
        change_a_setting(content, draw)
    content = text_of(content).encode()
    for _ in range(draw.choice([0, 0, 1, 2])):
        content = change_bytes(content, draw)
    return content


def read(filename: str, file: Path) -> dl.LlamaConfig:
    if filename == "params.json":
        return dl.LlamaConfig.from_params_json(file, 32_000)
    return dl.LlamaConfig.from_huggingface(file)


def check_refusal(error: Exception, file: Path) -> None:
    """One short printable sentence that names the file, raised by a line of ours that says raise."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    assert Path(frame.filename).parent == Path(dl.__file__).parent, error
    assert frame.line.startswith("raise "), error
    assert str(error).isprintable(), error
    assert len(str(error)) < 400, error
    assert str(file) in str(error), error


def check_params(config: dl.LlamaConfig, values: dict) -> None:
    keys = ("dim", "n_layers", "n_heads", "norm_eps")
    assert [getattr(config, key) for key in keys] == [values[key] for key in keys]
    assert config.vocab_size == (32_000 if values["vocab_size"] == -1 else values["vocab_size"])
    assert config.n_kv_heads == (values.get("n_kv_heads") or config.n_heads)
    assert (config.rope_scaling is not None) == values.get("use_scaled_rope", False)


def check_huggingface(config: dl.LlamaConfig, values: dict) -> None:
    """Against what transformers understands, where it does not refuse the file."""
    try:
        theirs = (MistralConfig if values["model_type"] == "mistral" else HuggingFaceConfig)(**values)
    except Exception:
        return
    assert (config.dim, config.n_layers, config.n_heads, config.n_kv_heads, config.hidden_dim) == (
        theirs.hidden_size,
        theirs.num_hidden_layers,
        theirs.num_attention_heads,
        theirs.num_key_value_heads,
        theirs.intermediate_size,
    )
    assert (config.head_dim, config.norm_eps, config.tie_embeddings) == (
        theirs.head_dim,
        theirs.rms_norm_eps,
        theirs.tie_word_embeddings,
    )
    rope, scaling = theirs.rope_parameters, config.rope_scaling
    assert config.rope_theta == rope["rope_theta"]
    assert rope["rope_type"] == ("default" if scaling is None else "llama3")
    assert scaling is None or (scaling.factor, scaling.low_freq_factor, scaling.original_context) == (
        rope["factor"],
        rope["low_freq_factor"],
        rope["original_max_position_embeddings"],
    )
    window = (
        theirs.sliding_window if values["model_type"] == "mistral" else None
    ) or theirs.max_position_embeddings
    assert config.max_seq_len == min(window, theirs.max_position_embeddings)


@pytest.fixture
def _quiet():
    """transformers logs settings that it ignores."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


@pytest.mark.long
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("filename", VALID)
def test_a_mutated_file_is_refused_or_read_as_it_stands(filename, tmp_path):
    """Catches any exception of Python or PyTorch, a setting read as another, and seconds spent on a small file."""
    file, outcomes = tmp_path / filename, Counter()
    for seed in range(int(os.environ.get("FUZZ", "2000"))):
        file.write_bytes(mutated(filename, seed))
        start, error = time.process_time(), None
        try:
            config = read(filename, file)
        except (ValueError, TypeError) as refusal:
            error = refusal
        assert time.process_time() - start < SECONDS, seed
        outcomes[type(error).__name__ if error else "read"] += 1
        try:
            if error:
                check_refusal(error, file)
                continue
            values = json.loads(file.read_text(encoding="utf-8-sig"))
            (check_params if filename == "params.json" else check_huggingface)(config, values)
            if config.n_layers <= 4 and seed % 10 == 0:
                with torch.device("meta"):
                    dl.Transformer(config)
        except BaseException as failure:
            raise AssertionError(f"seed {seed}") from failure
    print(dict(outcomes))
    assert min(outcomes["read"], outcomes["ValueError"], outcomes["TypeError"]) > outcomes.total() / 50, outcomes
