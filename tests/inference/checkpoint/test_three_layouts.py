"""Two layers of every preset, in Hugging Face's, Meta's and GGUF's layout: one model, and the same once saved.

Hugging Face's files are written by transformers, GGUF's by the library gguf, Meta's by torch.save with its names;
rows of queries and keys are brought into Meta's order here.
"""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import torch
from conftest import randomize, relative_difference
from folders import TOKENS, load
from gguf_files import write_gguf
from huggingface_configs import huggingface_config
from transformers import LlamaForCausalLM

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface

OURS = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w_gate",
    "mlp.up_proj": "feed_forward.w_up",
    "mlp.down_proj": "feed_forward.w_down",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
METAS = {"w_gate": "w1", "w_down": "w2", "w_up": "w3"}


def in_metas_order(theirs: LlamaForCausalLM, head_dim: int) -> dict[str, torch.Tensor]:
    """Weights by our names: row 2i of a head is its i-th in theirs, row 2i + 1 the i-th of its second half."""
    weights = {}
    for name, weight in theirs.state_dict().items():
        for old, new in OURS.items():
            name = name.replace(old + ".", new + ".")
        if "attention.wq" in name or "attention.wk" in name:
            order = [row for i in range(head_dim // 2) for row in (i, i + head_dim // 2)]
            weight = torch.cat([head[order] for head in weight.split(head_dim)])
        weights[name.removeprefix("model.")] = weight.clone()
    return weights


def write_meta(config: dl.LlamaConfig, weights: dict[str, torch.Tensor], folder) -> None:
    rule = {"multiple_of": 16, "ffn_dim_multiplier": (config.hidden_dim - 8) / (8 * config.dim // 3)}
    names = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "norm_eps", "rope_theta")
    params = {name: getattr(config, name) for name in names} | rule
    if config.rope_scaling is not None:
        params["use_scaled_rope"] = True
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(params))
    theirs = {}
    for name, weight in weights.items():
        *before, stem, last = name.split(".")
        theirs[".".join([*before, METAS.get(stem, stem), last])] = weight
    torch.save(theirs, folder / "consolidated.00.pth")


def frequency_divisors(theirs: LlamaForCausalLM, config: dl.LlamaConfig) -> np.ndarray:
    """What the frequencies of transformers without scaling are divided by in those with it."""
    plain = LlamaForCausalLM(huggingface_config(dataclasses.replace(config, rope_scaling=None, n_layers=1)))
    return (plain.model.rotary_emb.inv_freq / theirs.model.rotary_emb.inv_freq).numpy().astype(np.float32)


def write_all(config: dl.LlamaConfig, tmp_path) -> tuple[LlamaForCausalLM, dict]:
    theirs = randomize(LlamaForCausalLM(huggingface_config(config)))
    theirs.save_pretrained(tmp_path / "huggingface")
    weights = in_metas_order(theirs, config.head_dim)
    write_meta(config, weights, tmp_path / "meta")

    def scale(writer):
        if config.rope_scaling is not None:
            writer.add_tensor("rope_freqs.weight", frequency_divisors(theirs, config))

    stand_in = SimpleNamespace(config=config, state_dict=lambda: weights)
    write_gguf(stand_in, tmp_path / "model.gguf", change=scale)
    places = {"huggingface": tmp_path / "huggingface", "meta": tmp_path / "meta", "gguf": tmp_path / "model.gguf"}
    return theirs, places


def test_three_layouts_of_a_preset_are_one_model_and_stay_it(shrunk, request, tmp_path, monkeypatch):
    """Meta's params.json leaves scaling, tying and context to the preset of these widths: the shrunk one."""
    numbers = {field.name: getattr(shrunk, field.name) for field in dataclasses.fields(shrunk)}
    scaling = shrunk.rope_scaling and dataclasses.asdict(shrunk.rope_scaling)
    numbers.pop("head_dim")  # dim / n_heads in every preset
    monkeypatch.setitem(dl.PRESETS, request.node.callspec.params["shrunk"], numbers | {"rope_scaling": scaling})
    theirs, places = write_all(shrunk, tmp_path)
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    weights = in_metas_order(theirs, shrunk.head_dim)
    for name, place in places.items():
        model = load(place)
        save_huggingface(model, tmp_path / "saved" / name)
        for each in (model, load(tmp_path / "saved" / name)):
            assert each.config == shrunk, name
            state = each.state_dict()
            assert state.keys() == weights.keys()
            assert all(torch.equal(state[key], weights[key]) for key in weights), name
            assert relative_difference(each(TOKENS), expected) < 1e-5, name
            assert (each.output.weight is each.tok_embeddings.weight) == shrunk.tie_embeddings
    saved = [(tmp_path / "saved" / name / "model.safetensors").read_bytes() for name in places]
    assert saved[0] == saved[1] == saved[2]
