"""Broken and hostile checkpoints in Hugging Face's layout: each changes one thing in a good folder."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
QUERY, HEAD = "model.layers.0.self_attn.q_proj.weight", "lm_head.weight"
Build = Callable[[Path], object]


def read(folder: Path, name: str = "config.json") -> dict:
    return json.loads((folder / name).read_text())


def config(**changes) -> Build:
    return lambda folder: (folder / "config.json").write_text(json.dumps(read(folder) | changes))


def text(name: str, encode: Callable[[str], bytes]) -> Build:
    def build(folder: Path) -> None:
        (folder / name).write_bytes(encode((folder / name).read_text()))

    return build


def weights(change: Callable[[dict], object]) -> Build:
    def build(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return build


def header(change: Callable[[dict], object]) -> Build:
    """`change` gets what stands in the header of the safetensors file."""

    def build(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        values = json.loads(content[8 : 8 + length])
        new = change(values)
        new = json.dumps(values).encode() if new is None else new
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])

    return build


def raw(change: Callable[[bytes], bytes], name: str = WEIGHTS) -> Build:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def shards(change: Callable[[Path, dict], object]) -> Build:
    """The weights in two shards; `change` gets the folder and the weight_map, which is written afterwards."""

    def build(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = sorted(tensors)
        shard_of = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
        for shard in sorted(set(shard_of.values())):
            save_file({name: tensors[name] for name in names if shard_of[name] == shard}, folder / shard)
        new = change(folder, shard_of)
        index = {"metadata": {"total_size": 1}, "weight_map": shard_of}
        (folder / INDEX).write_text(new if isinstance(new, str) else json.dumps(index))

    return build


def swap(folder: Path, _: dict) -> None:
    one, two = (folder / f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


def twice(folder: Path, shard_of: dict) -> None:
    """A tensor in both shards, with other values in the one that the index does not name."""
    other = folder / next(shard for shard in sorted(set(shard_of.values())) if shard != shard_of[QUERY])
    tensors = load_file(other)
    save_file(tensors | {QUERY: torch.ones(48, 48)}, other)


def link(target: str):
    def change(folder: Path, shard_of: dict) -> None:
        shard = folder / shard_of[QUERY]
        place = folder.parent / f"{folder.name}.elsewhere" if target == "elsewhere" else Path(target)
        if target == "elsewhere":
            shard.rename(place)
        else:
            shard.unlink()
        os.symlink(place, shard)

    return change


def as_dtype(dtype: torch.dtype, name: str = QUERY) -> Build:
    return weights(lambda tensors: tensors.update({name: tensors[name].to(dtype)}))


def put(name: str, value: torch.Tensor | None) -> Build:
    return weights(lambda tensors: tensors.pop(name) if value is None else tensors.update({name: value}))


def renamed(old: str, new: str) -> Build:
    return weights(lambda tensors: [tensors.update({n.replace(old, new): tensors.pop(n)}) for n in list(tensors)])


def spoiled(value: float) -> Build:
    return weights(lambda tensors: tensors[QUERY].__setitem__((3, 5), value))


def grown(content: str) -> bytes:
    values = json.loads(content)
    first = values["added_tokens"][0]
    values["added_tokens"] += [{**first, "id": i, "content": f"<{i}>"} for i in range(4096, 8192)]
    return json.dumps(values).encode()


CASES: dict[str, Build] = {
    "config.json in UTF-16": text("config.json", lambda content: content.encode("utf-16")),
    "config.json with a byte order mark": text("config.json", lambda content: content.encode("utf-8-sig")),
    "config.json with CRLF line ends": text("config.json", lambda content: content.replace("\n", "\r\n").encode()),
    "config.json in Latin-1": text(
        "config.json", lambda c: c.replace("{", '{"x": "größer",', 1).encode("latin-1")
    ),
    "config.json is a list": text("config.json", lambda content: f"[{content}]".encode()),
    "config.json cut off": text("config.json", lambda content: content[:200].encode()),
    "config.json sets a width twice": text(
        "config.json", lambda content: content.replace("{", '{"hidden_size": 64,', 1).encode()
    ),
    "rms_norm_eps NaN": text(
        "config.json", lambda c: c.replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": NaN').encode()
    ),
    "rms_norm_eps 0": config(rms_norm_eps=0),
    "rms_norm_eps null": config(rms_norm_eps=None),
    "rope_theta 0": config(rope_theta=0),
    "rope_theta as text": config(rope_theta="10000"),
    "hidden_size as text": config(hidden_size="48"),
    "hidden_size true": config(hidden_size=True),
    "hidden_size 2**40": config(hidden_size=2**40),
    "a billion layers": config(num_hidden_layers=10**9),
    "7 heads for a width of 48, no head_dim": config(num_attention_heads=7, head_dim=None),
    "4 key/value heads for 6 query heads": config(num_key_value_heads=4),
    "no context": config(max_position_embeddings=0),
    "head_dim against the shape of wq": config(head_dim=16),
    "fewer key/value heads than wk has": config(num_key_value_heads=1),
    "intermediate_size against w_gate": config(intermediate_size=100),
    "vocab_size below the rows of the embedding": config(vocab_size=4000),
    "vocab_size above the rows of the embedding": config(vocab_size=4104),
    "three layers, files of two": config(num_hidden_layers=3),
    "one layer, files of two": config(num_hidden_layers=1),
    "tied, beside an lm_head that differs": config(tie_word_embeddings=True),
    "not tied, without lm_head": put(HEAD, None),
    "lm_head of fewer rows": put(HEAD, torch.zeros(4088, 48)),
    "model_type gpt2": config(model_type="gpt2"),
    "model_type qwen2": config(model_type="qwen2", architectures=["Qwen2ForCausalLM"]),
    "architectures of another model": config(architectures=["Qwen2ForCausalLM"]),
    "a classifier": config(architectures=["LlamaForSequenceClassification"]),
    "attention_bias true, no bias in the files": config(attention_bias=True),
    "a bias in the files, none in config.json": put("model.layers.0.self_attn.q_proj.bias", torch.ones(48)),
    "hidden_act gelu": config(hidden_act="gelu"),
    "YaRN": config(rope_scaling={"rope_type": "yarn", "factor": 4.0}),
    "the scaling of Llama 3.1 without its factor": config(rope_scaling={"rope_type": "llama3"}),
    "scaling factor 0": config(
        rope_scaling={
            "rope_type": "llama3",
            "factor": 0,
            "low_freq_factor": 1,
            "high_freq_factor": 4,
            "original_max_position_embeddings": 64,
        }
    ),
    "quantization_config of bitsandbytes": config(quantization_config={"load_in_4bit": True}),
    "names of GPT-NeoX": renamed("model.", "gpt_neox."),
    "names of Meta in safetensors": renamed("model.layers", "layers"),
    "names behind a wrapper": renamed("model.", "_orig_mod.model."),
    "a layer numbered with a zero before": renamed("layers.1.", "layers.01."),
    "a NaN among the weights": spoiled(float("nan")),
    "an infinite weight": spoiled(float("inf")),
    "one matrix in float64": as_dtype(torch.float64),
    "one matrix in bfloat16": as_dtype(torch.bfloat16),
    "one matrix in int64": as_dtype(torch.int64),
    "one matrix of booleans": as_dtype(torch.bool),
    "one matrix in float8": as_dtype(torch.float8_e4m3fn),
    "one matrix of complex numbers": as_dtype(torch.complex64),
    "an empty matrix": put(QUERY, torch.zeros(0, 48)),
    "a matrix that is one number": put(QUERY, torch.tensor(1.0)),
    "a matrix transposed": weights(
        lambda t: t.update(
            {"model.layers.0.mlp.up_proj.weight": t["model.layers.0.mlp.up_proj.weight"].T.contiguous()}
        )
    ),
    "weights cut off": raw(lambda content: content[:-100]),
    "bytes after the weights": raw(lambda content: content + b"x" * 100),
    "a header of 2**62 bytes": raw(lambda content: struct.pack("<Q", 2**62) + content[8:]),
    "a header that is no JSON": header(lambda values: b"{" * 100),
    "two tensors on the same bytes": header(
        lambda values: values["model.norm.weight"].update(data_offsets=values[QUERY]["data_offsets"])
    ),
    "a tensor of 2**40 rows": header(lambda values: values[QUERY].update(shape=[2**40, 48])),
    "a tensor of -48 rows": header(lambda values: values[QUERY].update(shape=[-48, 48])),
    "a dtype that nobody knows": header(lambda values: values[QUERY].update(dtype="F12")),
    "weights as a pickle under the name of safetensors": lambda folder: torch.save(
        {name: weight.clone() for name, weight in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS
    ),
    "shards exchanged": shards(swap),
    "a tensor in two shards": shards(twice),
    "an index that lists a tensor nobody has": shards(lambda _, m: m.update({"model.layers.2.x": m[QUERY]})),
    "an index that leaves a tensor out": shards(lambda _, m: m.pop(QUERY) and None),
    "an index that gives a tensor to the other shard": shards(
        lambda _, m: m.update({QUERY: next(s for s in sorted(set(m.values())) if s != m[QUERY])})
    ),
    "a shard is missing": shards(lambda folder, m: (folder / m[QUERY]).unlink()),
    "an empty index": shards(lambda *_: "{}"),
    "an index whose weight_map is a list": shards(lambda *_: '{"weight_map": ["a"]}'),
    "an index of shards in another folder": shards(lambda _, m: m.update({QUERY: f"../{m[QUERY]}"})),
    "an index and a whole file beside it": shards(
        lambda folder, m: (folder / WEIGHTS).write_bytes((folder / m[QUERY]).read_bytes())
    ),
    "a shard that links to a good file elsewhere": shards(link("elsewhere")),
    "a shard that links to /dev/zero": shards(link("/dev/zero")),
    "a shard that links to itself": shards(
        lambda folder, m: ((folder / m[QUERY]).unlink(), os.symlink(m[QUERY], folder / m[QUERY]))[1]
    ),
    "a total_size that is wrong": shards(lambda *_: None),
    "generation_config.json ends texts with an id beyond the vocabulary": lambda folder: (
        folder / "generation_config.json"
    ).write_text('{"eos_token_id": [17, 999999]}'),
    "generation_config.json ends texts with a word": lambda folder: (folder / "generation_config.json").write_text(
        '{"eos_token_id": "<|eot_id|>"}'
    ),
    "generation_config.json in UTF-16": text("generation_config.json", lambda c: c.encode("utf-16")),
    "tokenizer.json cut off": text("tokenizer.json", lambda content: content[:5000].encode()),
    "tokenizer.json is a web page": text("tokenizer.json", lambda _: b"<!doctype html><html>sign in</html>"),
    "tokenizer.json without merges": text(
        "tokenizer.json", lambda c: json.dumps(json.loads(c) | {"model": {"type": "BPE"}}).encode()
    ),
    "tokenizer.json gives one id to two tokens": text(
        "tokenizer.json", lambda c: c.replace('"Ġthe": ', '"Ġthe": 7, "qqqq": ', 1).encode()
    ),
    "tokenizer.json with a special token of id 2**31": text(
        "tokenizer.json", lambda c: c.replace('"id": 4095', f'"id": {2**31}', 1).encode()
    ),
    "tokenizer.json of 8,192 tokens for a model of 4,096": text("tokenizer.json", grown),
    "tokenizer_config.json in UTF-16": text("tokenizer_config.json", lambda c: c.encode("utf-16")),
    "a chat template that is a number": text(
        "tokenizer_config.json", lambda c: json.dumps(json.loads(c) | {"chat_template": 5}).encode()
    ),
    "a chat template that never ends": lambda folder: (folder / "chat_template.jinja").write_text(
        "{% for i in range(9999) %}{% for j in range(9999) %}{{ i * j }}{% endfor %}{% endfor %}"
    ),
    "a chat template with an error": lambda folder: (
        (folder / "chat_template.jinja").write_text("{% if %}") and None
    ),
    "an adapter alone": lambda folder: (
        (folder / "config.json").unlink(),
        (folder / WEIGHTS).rename(folder / "adapter_model.safetensors"),
        (folder / "adapter_config.json").write_text("{}"),
    ),
    "pytorch_model.bin alone": lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin") and None,
    "config.json is a folder": lambda folder: (
        (folder / "config.json").unlink(),
        (folder / "config.json").mkdir(),
    ),
    "an empty folder": lambda folder: [path.unlink() for path in folder.iterdir()] and None,
}
