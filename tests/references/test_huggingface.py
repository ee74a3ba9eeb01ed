"""The oracle nobody here wrote, first: `LlamaForCausalLM` of Hugging Face transformers, on the same weights."""

import dataclasses
import json

import pytest
import torch
from conftest import randomize, relative_difference, shrink
from huggingface_configs import huggingface_config
from transformers import LlamaForCausalLM

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint import find
from decoding_llama3.inference.checkpoint import huggingface as huggingface_format
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.quantize import quantize_int8


@pytest.fixture
def pair(shrunk, tmp_path):
    """Our model and theirs, read from the files that ours was saved to."""
    save_huggingface(randomize(dl.Transformer(shrunk)), tmp_path)
    ours = dl.load_model(tmp_path, dtype=torch.float32)
    return ours, huggingface(tmp_path)


def huggingface(path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def both(ours, theirs, positions):
    tokens = torch.randint(ours.config.vocab_size, (2, len(positions)))
    with torch.inference_mode():
        mask = torch.ones_like(tokens)  # else transformers takes gaps in the positions for borders of documents
        return ours(tokens, positions), theirs(tokens, position_ids=positions[None], attention_mask=mask).logits


def test_logits_equal(pair):
    assert relative_difference(*both(*pair, torch.arange(23))) < 1e-5


@pytest.mark.parametrize("step", [1, 173])  # far apart too: RoPE sees distances only, and scaling slows long waves
def test_logits_equal_past_position_8192(pair, step):
    assert relative_difference(*both(*pair, 9000 + step * torch.arange(23))) < 2e-5


def test_an_int8_model_means_the_same_to_them(tmp_path):
    """Codes saved as weights would load there, and be 200 times too large."""
    save_huggingface(quantize_int8(randomize(dl.Transformer(shrink("llama3.2-1b")))), tmp_path)
    ours = dl.load_model(tmp_path, dtype=torch.float32)
    assert relative_difference(*both(ours, huggingface(tmp_path), torch.arange(23))) < 1e-5


@pytest.mark.parametrize("ids", [{}, {"bos_token_id": 5, "eos_token_id": (6, 7)}])
def test_they_read_the_ids_that_were_given_and_make_up_none(ids, tmp_path):
    save_huggingface(dl.Transformer(shrink("llama3-8b")), tmp_path, **ids)
    for read in (huggingface(tmp_path).config, huggingface(tmp_path).generation_config):
        assert read.bos_token_id == ids.get("bos_token_id")
        assert read.eos_token_id == (list(ids["eos_token_id"]) if ids else None)


@pytest.mark.parametrize("head_dim", [16, 20])
def test_a_checkpoint_of_theirs_loads(shrunk, head_dim, tmp_path):
    """Their own config.json, and several shards with an index; heads of 20 make wq and wo not square."""
    config = dataclasses.replace(shrunk, head_dim=head_dim)
    theirs = LlamaForCausalLM(huggingface_config(config))
    randomize(theirs).save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    ours = dl.load_model(tmp_path, dtype=torch.float32)
    assert ours.config == config
    assert relative_difference(*both(ours, theirs, torch.arange(23))) < 1e-5
    save_huggingface(ours, tmp_path / "saved")
    assert relative_difference(*both(ours, huggingface(tmp_path / "saved"), torch.arange(23))) < 1e-5


def test_rope_settings_of_transformers_4_read_the_same(tmp_path):
    save_huggingface(dl.Transformer(shrink("llama3.2-1b")), tmp_path)
    old = json.loads((tmp_path / "config.json").read_text())
    new = {k: v for k, v in old.items() if k not in ("rope_theta", "rope_scaling")}
    new["rope_parameters"] = {"rope_theta": old["rope_theta"], **old["rope_scaling"]}
    read = dl.LlamaConfig.from_huggingface
    assert read(json.dumps(old)) == read(json.dumps(new)) == shrink("llama3.2-1b")


def test_greedy_tokens_equal(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3-8b"))), tmp_path)
    ours, theirs = dl.load_model(tmp_path, dtype=torch.float32), huggingface(tmp_path)
    prompt = torch.randint(ours.config.vocab_size, (1, 17))
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=100,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert list(dl.generate(ours, prompt[0].tolist(), max_new_tokens=100)) == expected[0, 17:].tolist()


def _wrong_layout(monkeypatch):
    monkeypatch.setattr(huggingface_format, "interleave_pairs", lambda weight, head_dim: weight)


def _unapplied_norm_weight(monkeypatch):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)

    monkeypatch.setattr(dl.RMSNorm, "forward", forward)


def _dropped_scaling(monkeypatch):
    monkeypatch.setattr("decoding_llama3.transformer.scale_frequencies", lambda freqs, scaling: freqs)


def _position_ignored(monkeypatch):
    rotation = dl.rope_rotation
    monkeypatch.setattr(
        "decoding_llama3.transformer.rope_rotation", lambda freqs, positions: rotation(freqs, positions * 0)
    )


@pytest.mark.parametrize(
    "fault", [_wrong_layout, _unapplied_norm_weight, _dropped_scaling, _position_ignored], ids=lambda f: f.__name__
)
def test_a_fault_is_seen(fault, monkeypatch, tmp_path):
    """Each of these loads and runs without an error; only the comparison tells."""
    save_huggingface(randomize(dl.Transformer(shrink("llama3.1-8b"))), tmp_path)
    fault(monkeypatch)
    ours = dl.load_model(tmp_path, dtype=torch.float32)
    assert relative_difference(*both(ours, huggingface(tmp_path), 9000 + 173 * torch.arange(23))) > 1e-2


def test_tiny_is_read_by_transformers_and_tells_the_same_tale():
    path = find.checkpoint_path("tiny")
    ours, theirs = dl.load_model("tiny", dtype=torch.float32), huggingface(path)
    prompt = dl.load_tokenizer("tiny").encode("Once upon a time", bos=True)
    assert relative_difference(*both(ours, theirs, torch.arange(300))) < 1e-5
    expected = theirs.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=100,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert list(dl.generate(ours, prompt, max_new_tokens=100)) == expected[0, len(prompt) :].tolist()
