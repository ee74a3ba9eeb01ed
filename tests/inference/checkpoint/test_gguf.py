"""GGUF files: weights equal to the library's, logits to Hugging Face's, and what is damaged refused."""

import dataclasses
import struct
import sys
import time

import gguf
import numpy as np
import pytest
import torch
from conftest import randomize, relative_difference, shrink
from gguf_files import write_gguf
from transformers import LlamaConfig as HuggingFaceConfig
from transformers import LlamaForCausalLM

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import huggingface_settings, save_huggingface
from decoding_llama3.inference.checkpoint.gguf import open_gguf
from decoding_llama3.inference.checkpoint.gguf_header import read_header

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")

THEIRS = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w_gate": "mlp.gate_proj",
    "feed_forward.w_up": "mlp.up_proj",
    "feed_forward.w_down": "mlp.down_proj",
}


def wide(name: str = "llama3-8b") -> dl.LlamaConfig:
    """A small model whose rows are whole blocks of 256 weights, and whose wq is not square."""
    return dataclasses.replace(shrink(name), dim=256, hidden_dim=512, n_heads=8, n_kv_heads=2, head_dim=64)


def make(tmp_path, config=None, kind="F32", change=None):
    model = randomize(dl.Transformer(config or wide()))
    return model, tmp_path / "model.gguf", write_gguf(model, tmp_path / "model.gguf", kind, change)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_that_the_library_reads(tmp_path, kind):
    _, path, written = make(tmp_path, kind=kind)
    found = dl.load_model(path, dtype=torch.float32).state_dict()
    assert found.keys() == written.keys()
    for name, weight in written.items():
        assert weight.abs().max() < 1e3
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_hugging_face(tmp_path, tied):
    """The rows of queries and keys are in Meta's order: Hugging Face's model gets them in its own, made here."""
    config = dataclasses.replace(wide(), tie_embeddings=tied)
    _, path, written = make(tmp_path, config, kind="Q8_0")
    theirs = LlamaForCausalLM(HuggingFaceConfig(**huggingface_settings(config))).eval()
    state = {}
    for name, weight in written.items():
        if name.endswith(("wq.weight", "wk.weight")):
            weight = weight.view(-1, config.head_dim // 2, 2, config.dim).transpose(1, 2).reshape(weight.shape)
        parts = name.removesuffix(".weight").split(".", 2)
        if parts[0] == "layers":
            state[f"model.layers.{parts[1]}.{THEIRS[parts[2]]}.weight"] = weight
        else:
            state[f"{THEIRS[parts[0]]}.weight"] = weight
    lacking = theirs.load_state_dict(state, strict=False)
    assert (lacking.missing_keys, lacking.unexpected_keys) == (["lm_head.weight"] if tied else [], [])
    theirs.tie_weights()
    tokens = torch.randint(config.vocab_size, (2, 17))
    ours = dl.load_model(path, dtype=torch.float32)
    with torch.no_grad():
        assert relative_difference(ours(tokens), theirs(tokens).logits) < 1e-5


@pytest.mark.parametrize("alignment", [8, 16, 64, 512])
def test_a_file_of_another_alignment_is_read(alignment, tmp_path):
    """Catches tensors that are sought where the default of 32 bytes would put them."""
    _, path, written = make(tmp_path, change=lambda w: w.add_custom_alignment(alignment))
    found = dl.load_model(path, dtype=torch.float32).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in written.items())


def test_int8_is_made_straight_from_the_blocks(tmp_path):
    model, path, _ = make(tmp_path, kind="Q8_0")
    small = dl.load_model(path, quantize="int8")
    tokens = torch.randint(320, (1, 9))
    assert relative_difference(small(tokens), model(tokens)) < 0.05


def test_a_configuration_comes_back(tmp_path):
    """Numbers that the file holds in float32 come back as they were written."""
    for name in ("llama2-70b", "llama3-8b", "mistral-7b-v0.3", "tiny"):
        config = dataclasses.replace(wide(name), rope_scaling=None)
        _, path, _ = make(tmp_path, config)
        assert open_gguf(path).config == config


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_rope_is_recognised(tmp_path, factor):
    """The oracle is the inverse frequencies of transformers: the file holds what they were divided by."""
    config = dataclasses.replace(wide(), n_heads=4, n_kv_heads=2, head_dim=128)
    scaling = dl.RopeScaling(factor=factor)
    scaled = dataclasses.replace(config, rope_scaling=scaling)
    theirs = LlamaForCausalLM(HuggingFaceConfig(**huggingface_settings(scaled))).model.rotary_emb.inv_freq
    plain = LlamaForCausalLM(HuggingFaceConfig(**huggingface_settings(config))).model.rotary_emb.inv_freq
    factors = (plain / theirs).numpy().astype(np.float32)
    _, path, _ = make(tmp_path, config, change=lambda writer: writer.add_tensor("rope_freqs.weight", factors))
    assert open_gguf(path).config == scaled
    _, path, _ = make(tmp_path, config, change=lambda writer: writer.add_tensor("rope_freqs.weight", factors**0.5))
    with pytest.raises(ValueError, match=r"model\.gguf scales RoPE in a way that is not Llama 3\.1's"):
        open_gguf(path)


def test_a_part_of_a_split_model_is_refused_with_the_remedy(tmp_path):
    _, path, _ = make(tmp_path, change=lambda writer: writer.add_uint16("split.count", 3))
    with pytest.raises(ValueError, match=r"is one of 3 files of a model.*llama-gguf-split --merge"):
        open_gguf(path)
    _, path, _ = make(tmp_path, change=lambda writer: writer.add_uint16("split.count", 1))
    open_gguf(path)


def test_the_header_is_the_one_that_the_library_reads(tmp_path):
    def more(writer):
        writer.add_token_list(["a", "b", "größe", ""])
        writer.add_token_types([1, 2, 3, 6])
        writer.add_token_scores([0.5, -1.0, 2.0, 0.0])
        writer.add_string("general.name", "unused")
        writer.add_array("general.languages", ["en", "de"])
        writer.add_bool("tokenizer.ggml.add_bos_token", False)

    _, path, _ = make(tmp_path, kind="Q4_1", change=more)
    settings, places = read_header(path)
    theirs = gguf.GGUFReader(path)
    for name, field in theirs.fields.items():
        if name.startswith(("llama.", "tokenizer.", "general.architecture")):
            assert np.asarray(settings[name] == np.asarray(field.contents())).all(), name
    assert {key for key in settings if key.startswith("general.")} == {"general.architecture"}
    assert {name: (place.start, place.n_bytes, place.shape[::-1]) for name, place in places.items()} == {
        tensor.name: (tensor.data_offset, tensor.n_bytes, tuple(tensor.shape.tolist()))
        for tensor in theirs.tensors
    }


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda w: w.add_float64("llama.logit_scale", 0.5), r"sets 'llama\.logit_scale' to 0\.5, which"),
        (lambda w: w.add_expert_count(8), r"sets 'llama\.expert_count' to 8, which is not known here"),
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN), "scales RoPE in the way 'yarn'"),
        (lambda w: w.add_key_length(48), "gives a head different sizes"),
        (lambda w: w.add_tensor("blk.0.attn_q.bias", np.zeros(256, np.float32)), r"has, .*'blk\.0\.attn_q\.bias'"),
        (lambda w: w.add_tensor("norm.weight", np.zeros(256, np.float32)), r"has, .*'norm\.weight'"),
    ],
    ids=["logit scale", "experts", "yarn", "head sizes", "bias", "a name of ours"],
)
def test_what_is_not_implemented_is_refused(tmp_path, add, words):
    _, path, _ = make(tmp_path, change=add)
    with pytest.raises(ValueError, match=words):
        dl.load_model(path)


def test_only_quantised_weights_need_the_library(tmp_path, monkeypatch):
    """And what is missing is said before any weight is read."""
    _, whole, _ = make(tmp_path)
    quantised = tmp_path / "q.gguf"
    write_gguf(dl.Transformer(wide()), quantised, "Q8_0")
    monkeypatch.setitem(sys.modules, "gguf", None)
    dl.load_model(whole)
    with pytest.raises(ValueError, match=r"need the package gguf: pip install 'decoding-llama3\[real\]'"):
        open_gguf(quantised)


def test_settings_that_a_file_may_leave_out(tmp_path, monkeypatch):
    """Theta is 10,000 then, and every query head has its own keys and values: the rules of llama.cpp."""
    for name in ("add_rope_freq_base", "add_head_count_kv", "add_rope_dimension_count", "add_vocab_size"):
        monkeypatch.setattr(gguf.GGUFWriter, name, lambda self, value: None)
    config = dataclasses.replace(wide(), n_heads=8, n_kv_heads=8, head_dim=32, rope_theta=10_000.0)
    _, path, _ = make(tmp_path, config)
    assert open_gguf(path).config == config


@pytest.mark.parametrize("name", ["add_block_count", "add_embedding_length", "add_context_length"])
def test_a_setting_that_is_needed_is_asked_for(tmp_path, monkeypatch, name):
    monkeypatch.setattr(gguf.GGUFWriter, name, lambda self, value: None)
    with pytest.raises(ValueError, match=r"model\.gguf (lacks|has no|sets)"):
        open_gguf(make(tmp_path)[1])


def test_a_scaling_of_one_changes_nothing(tmp_path):
    _, path, _ = make(tmp_path, change=lambda writer: writer.add_expert_count(0))
    dl.load_model(path)


def test_another_architecture_is_refused_by_name(tmp_path):
    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"other\.gguf holds a model of the architecture 'qwen2'; only 'llama'"):
        dl.load_model(path)


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content)) + content.encode()


def header(n_tensors=0, settings=(), version=3, n_settings=None, rest=b"") -> bytes:
    n = len(settings) if n_settings is None else n_settings
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n) + b"".join(settings) + rest


def tensor(name="t", axes=(32,), kind=0, offset=0) -> bytes:
    return text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, kind, offset)


ARCHITECTURE = text("general.architecture") + struct.pack("<I", 8) + text("llama")
HOSTILE = {  # the content of a file: what is said of it
    "empty": (b"", r"is empty"),
    "three letters": (b"GGU", r"begins with b'GGU'"),
    "another format": (b"\x80\x02ctorch", r"is no GGUF file"),
    "magic alone": (b"GGUF", r"a number ends after the file"),
    "version 1": (header(version=1), r"of GGUF version 1, expected 2 or 3"),
    "version 4": (header(version=4), r"of GGUF version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), r"of GGUF version 50331648"),
    "counts cut off": (b"GGUF" + struct.pack("<IQ", 3, 0), r"a number ends after the file"),
    "2^40 settings": (header(n_settings=2**40), r"it announces 1,099,511,627,776 settings"),
    "2^63 settings": (header(n_settings=2**63), r"it announces 9,223,372,036,854,775,808 settings"),
    "2^40 tensors": (header(n_tensors=2**40), r"it announces 1,099,511,627,776 tensors"),
    "a setting too few": (
        header(n_settings=2, settings=[ARCHITECTURE]),
        r"it announces 2 settings|ends after the file",
    ),
    "a name of 2^40 bytes": (
        header(settings=[struct.pack("<Q", 2**40) + b"x" * 8]),
        r"the name of a setting ends after",
    ),
    "a name of 2^64 - 1 bytes": (
        header(settings=[struct.pack("<Q", 2**64 - 1) + b"x" * 8]),
        r"the name of a setting ends after",
    ),
    "a name that is not UTF-8": (
        header(settings=[struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<IB", 0, 1)]),
        r"the name of a setting is not UTF-8",
    ),
    "a list of 2^40 numbers": (
        header(settings=[text("llama.x") + struct.pack("<IIQ", 9, 4, 2**40)]),
        r"it announces .* elements of the value of 'llama.x'",
    ),
    "a list of 2^40 texts": (
        header(settings=[text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**40)]),
        r"it announces .* elements of the value of 'tokenizer",
    ),
    "a list of lists": (
        header(settings=[text("llama.x") + struct.pack("<IIQIQ", 9, 9, 1, 9, 1)]),
        r"of the type 9, which is not known",
    ),
    "a list of an unknown type": (
        header(settings=[text("llama.x") + struct.pack("<IIQ", 9, 99, 0)]),
        r"of the type 99, which is not known",
    ),
    "an unknown type": (
        header(settings=[text("llama.x") + struct.pack("<IQ", 13, 0)]),
        r"of the type 13, which is not known",
    ),
    "a text of 2^40 bytes": (
        header(settings=[text("llama.x") + struct.pack("<IQ", 8, 2**40)]),
        r"the value of 'llama.x' ends after",
    ),
    "an unused text of 2^40 bytes": (
        header(settings=[text("x") + struct.pack("<IQ", 8, 2**40)]),
        r"the value of 'x' ends after",
    ),
    "a text that is not UTF-8": (
        header(settings=[text("llama.x") + struct.pack("<IQ", 8, 1) + b"\xff"]),
        r"the value of 'llama.x' is not UTF-8",
    ),
    "a number cut off": (
        header(settings=[text("llama.x") + struct.pack("<IH", 4, 0)]),
        r"the value of 'llama.x' ends after",
    ),
    "a setting twice": (header(settings=[ARCHITECTURE, ARCHITECTURE]), r"sets 'general.architecture' twice"),
    "alignment 0": (
        header(settings=[text("general.alignment") + struct.pack("<II", 4, 0)]),
        r"its alignment is 0,",
    ),
    "alignment 3": (
        header(settings=[text("general.alignment") + struct.pack("<II", 4, 3)]),
        r"its alignment is 3,",
    ),
    "alignment a text": (
        header(settings=[text("general.alignment") + struct.pack("<I", 8) + text("32")]),
        r"its alignment is '32'",
    ),
    "alignment a list": (
        header(settings=[text("general.alignment") + struct.pack("<IIQI", 9, 4, 1, 32)]),
        r"its alignment is",
    ),
    "a tensor without axes": (header(1, rest=tensor(axes=()) + bytes(256)), r"has 0 axes, expected 1 to 4"),
    "a tensor of 5 axes": (header(1, rest=tensor(axes=(32, 1, 1, 1, 1)) + bytes(256)), r"has 5 axes"),
    "a tensor of 2^31 axes": (
        header(1, rest=text("t") + struct.pack("<I", 2**31) + bytes(256)),
        r"has 2147483648 axes",
    ),
    "an axis of 0": (header(1, rest=tensor(axes=(0,)) + bytes(256)), r"no whole blocks of F32"),
    "an axis of 2^63": (header(1, rest=tensor(axes=(2**63,)) + bytes(256)), r"has no .* bytes of its own"),
    "axes that overflow together": (
        header(1, rest=tensor(axes=(2**33, 2**33)) + bytes(256)),
        r"has no .* bytes of its own",
    ),
    "a type unknown": (header(1, rest=tensor(kind=77) + bytes(256)), r"in the type 77; read here are F32"),
    "a type that is not read": (
        header(1, rest=tensor(kind=16, axes=(256,)) + bytes(256)),
        r"in the type IQ2_XXS; read here are",
    ),
    "half a block": (header(1, rest=tensor(kind=12, axes=(128,)) + bytes(256)), r"no whole blocks of Q4_K"),
    "data after the end": (header(1, rest=tensor(offset=2**20) + bytes(256)), r"has no 128 bytes of its own"),
    "an offset of 2^64 - 32": (
        header(1, rest=tensor(offset=2**64 - 32) + bytes(256)),
        r"has no 128 bytes of its own",
    ),
    "an offset off the grid": (header(1, rest=tensor(offset=8) + bytes(256)), r"has no 128 bytes of its own"),
    "data cut off": (header(1, rest=tensor(axes=(64,)) + bytes(128)), r"has no 256 bytes of its own"),
    "two tensors in one place": (
        header(2, rest=tensor("a") + tensor("b") + bytes(512)),
        r"'b' has no 128 bytes|'a' has no 128 bytes",
    ),
    "two tensors that overlap": (
        header(2, rest=tensor("a", (64,)) + tensor("b", offset=32) + bytes(512)),
        r"'b' has no 128 bytes of its own",
    ),
    "two tensors of one name": (
        header(2, rest=tensor("a") + tensor("a", offset=128) + bytes(512)),
        r"of 2 tensors some have the same name",
    ),
    "no architecture": (
        header(1, rest=tensor("token_embd.weight", (32, 2)) + bytes(512)),
        r"of the architecture null",
    ),
    "an escape code": (
        header(1, [text("\x1b[31mred") + struct.pack("<I", 77)], rest=bytes(64)),
        r"the type 77, which is not known",
    ),
    "no tensors": (header(0, [ARCHITECTURE]), r"has no|lacks"),
}


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_or_hostile_file_is_refused_at_once(tmp_path, content, words):
    """The library's own reader grows without end on some of these."""
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=rf"hostile\.gguf.*({words})") as caught:
        dl.load_model(path)
    assert time.perf_counter() - start < 1
    message = str(caught.value)
    assert len(message) < 500
    assert message.isprintable()


def test_large_lists_take_bounded_memory(tmp_path):
    """Two million empty texts in a file of 16 MB are refused; so is a header that never ends."""
    path = tmp_path / "many.gguf"
    many = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**21) + bytes(8 * 2**21)
    path.write_bytes(header(settings=[many]))
    with pytest.raises(ValueError, match="lists 2,097,152 texts, expected at most 1,048,576"):
        read_header(path)
    with path.open("wb") as file:
        file.write(header(settings=[text("x") + struct.pack("<IQ", 8, 2**27)]))
        file.truncate(2**28)
    with pytest.raises(ValueError, match="ends after the file, or after 67,108,864 bytes"):
        read_header(path)


def test_a_model_saved_as_hugging_face_is_the_same_model(tmp_path):
    model, path, _ = make(tmp_path)
    save_huggingface(dl.load_model(path, dtype=torch.float32), tmp_path / "saved")
    again = dl.load_model(tmp_path / "saved", dtype=torch.float32)
    assert again.config == model.config
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_a_folder_of_gguf_files_says_to_pass_one(tmp_path):
    make(tmp_path)
    with pytest.raises(ValueError, match=r"holds GGUF files: pass one of them, such as 'model\.gguf'"):
        dl.load_model(tmp_path)
