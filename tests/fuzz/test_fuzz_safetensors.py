"""A safetensors file whose header was changed at random: it loads, or one ValueError of ours says why not."""

import json
import random
import struct

import pytest
from attempt import TIMES, attempt

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface

SMALL = dl.LlamaConfig(dim=8, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=8, vocab_size=8, tie_embeddings=True)
NUMBERS = [0, 1, -1, 2, 7, 8, 255, 0.5, 1e300, 10**30]
NUMBERS += [2**n + d for n in (31, 32, 53, 63, 64) for d in (-1, 0)]
DTYPES = ["F32", "F64", "BF16", "F16", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "f32", "\x1b[31m", "", None, 5]
ODDITIES = [None, True, "", "x", [], {}, [[]], {"a": {}}, "\ud800", "\x1b[2J", *NUMBERS]


def flip_bytes(draw: random.Random, content: bytes, end: int) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        changed[draw.randrange(end)] = draw.choice([draw.randrange(256), 0, 255, ord('"'), ord("{"), ord("9")])
    return bytes(changed)


def cut_or_grow(draw: random.Random, content: bytes, end: int) -> bytes:
    place = draw.randrange(len(content) + 1)
    return draw.choice(
        [content[:place], content[:place] + bytes(draw.randrange(9)) + content[place:], content[place:]]
    )


def change_length(draw: random.Random, content: bytes, end: int) -> bytes:
    length = draw.choice([*range(12), end, end - 1, end + 1, len(content), 2**24, 2**27, 2**31, 2**63, 2**64 - 1])
    return struct.pack("<Q", length) + content[8:]


def change_entry(draw: random.Random, header: dict) -> None:
    name = draw.choice(list(header))
    entry = header[name]
    key = draw.choice(["dtype", "shape", "data_offsets", "shape", "data_offsets", "entry", "more"])
    if key == "entry":
        header[name] = draw.choice(ODDITIES)
    elif key == "more":
        entry[draw.choice(["x", "shape ", ""])] = draw.choice(ODDITIES)
    elif key == "dtype" or draw.random() < 0.2:
        entry[key] = draw.choice(DTYPES if key == "dtype" else ODDITIES)
    else:
        values = entry[key]
        values[draw.randrange(len(values))] = draw.choice(
            [*NUMBERS, *(n + draw.choice([-4, 4, 0]) for n in values)]
        )
        if draw.random() < 0.2:
            values.extend([draw.choice(NUMBERS)] * draw.choice([1, 1, 10_000]))


def exchange_ranges(draw: random.Random, header: dict) -> None:
    """Overlapping, if their sizes differ; the right size with another's values, if not."""
    one, other = draw.sample(list(header), 2)
    header[one]["data_offsets"] = list(header[other]["data_offsets"])
    if draw.random() < 0.5:
        header[one]["shape"] = list(header[other]["shape"])


def rename(draw: random.Random, header: dict) -> None:
    name = draw.choice(list(header))
    prefix = draw.choice(["model.", "_orig_mod.", "\x1b[31m", "x" * 1000, "layers.9" * 99, "."])
    header[draw.choice([prefix + name, name.replace("0", "1"), name.replace("0", "9" * 5000), name + ".bias"])] = (
        header.pop(name)
    )


def repeat(draw: random.Random, text: str, header: dict) -> str:
    """The same name twice, which no dictionary can say."""
    name = draw.choice(list(header))
    return text[:-1] + f", {json.dumps(name)}: {json.dumps(header[draw.choice(list(header))])}}}"


def is_entry(value: object) -> bool:
    """Whether it still is one, so that another change can be made to it."""
    lists = [value.get(key) for key in ("shape", "data_offsets")] if isinstance(value, dict) else [None]
    return all(isinstance(n, list) and n and all(isinstance(i, (int, float)) for i in n) for n in lists)


def mutate(draw: random.Random, content: bytes) -> bytes:
    end = 8 + struct.unpack("<Q", content[:8])[0]
    if draw.random() < 0.4:
        return draw.choice([flip_bytes, cut_or_grow, change_length])(draw, content, end)
    header = json.loads(content[8:end])
    header.pop("__metadata__")
    for _ in range(draw.choice([1, 1, 2])):
        if all(is_entry(entry) for entry in header.values()):
            draw.choice([change_entry, change_entry, exchange_ranges, rename])(draw, header)
    text = json.dumps(header)
    text = repeat(draw, text, header) if draw.random() < 0.1 else text
    return struct.pack("<Q", len(text)) + text.encode() + content[end:]


@pytest.mark.long
def test_no_header_breaks_the_loader(tmp_path):
    """Bytes, lengths, numbers, dtypes, ranges, names and repeats; the seed of a failure is in its message."""
    save_huggingface(dl.Transformer(SMALL), tmp_path)
    file = tmp_path / "model.safetensors"
    content, loaded = file.read_bytes(), 0
    for seed in range(TIMES):
        changed = mutate(random.Random(seed), content)
        file.unlink()  # a model that was loaded may still be mapped from it
        file.write_bytes(changed)
        loaded += attempt(tmp_path, seed) is not None
    assert 0 < loaded < TIMES / 2  # some changes change nothing; most must be refused
