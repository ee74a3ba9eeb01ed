"""The tokenizer.json of a Llama 3: recognised, so that tiktoken can run it, and written."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from decoding_llama3.inference.tokenizers.ranks import merges_of, ranks_in, written_as
from decoding_llama3.tokenizer import SPLIT_PATTERN

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_SPLIT = {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}, "behavior": "Isolated", "invert": False}
_MODEL = {  # what changes ids, and the value that Llama 3's has
    "type": ("BPE",),
    "dropout": (None,),
    "unk_token": (None,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (True,),
}


class Llama3Vocabulary(NamedTuple):
    """Ordinary tokens by their bytes, special ones by name, and the one that a text begins with, if any does."""

    ranks: dict[bytes, int]
    special_ids: dict[str, int]
    first: int | None


def llama3_vocabulary(content: dict[str, Any]) -> Llama3Vocabulary | None:
    """What stands in a tokenizer.json, if it cuts texts as Llama 3 does and its merges say what its ids say.

    None for every other file, a damaged one among them: the library tokenizers judges those.
    """
    try:
        return _read(content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _read(content: dict[str, Any]) -> Llama3Vocabulary | None:
    model, pre = content["model"], content["pre_tokenizer"]
    if content.get("normalizer") is not None or content["decoder"]["type"] != "ByteLevel":
        return None
    if any(model.get(key) not in values for key, values in _MODEL.items()):
        return None
    split, byte_level = pre["pretokenizers"]
    if split != _SPLIT or byte_level | {"trim_offsets": True} != _BYTE_LEVEL:
        return None
    added = content.get("added_tokens") or []
    special = {entry["content"]: entry["id"] for entry in added}
    ids = [*model["vocab"].values(), *special.values()]
    if not all(entry["special"] is True for entry in added) or any(type(i) is not int or i < 0 for i in ids):
        return None
    ordinary = {token: i for token, i in model["vocab"].items() if token not in special}
    if len({*ordinary.values(), *special.values()}) < len(ordinary) + len(special) or "" in special:
        return None
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    ranks = ranks_in(ordinary, merges)
    if ranks is None:
        return None
    return Llama3Vocabulary(ranks, special, _first(content.get("post_processor"), special))


def _first(post_processor: dict[str, Any] | None, special: dict[str, int]) -> int | None:
    """The special token that a TemplateProcessing puts before a text; KeyError where it does anything else."""
    if post_processor is None:
        return None
    steps = post_processor["processors"] if post_processor["type"] == "Sequence" else [post_processor]
    first = None
    for step in steps:
        if step["type"] == "TemplateProcessing":
            *before, text = step["single"]
            (first,) = (special[token["SpecialToken"]["id"]] for token in before) if before else (None,)
            text["Sequence"]["id"]
        elif step["type"] != "ByteLevel":
            raise KeyError(step["type"])
    return first


def llama3_json(ranks: Mapping[bytes, int], special_ids: Mapping[str, int], first: str | None) -> str:
    """The text of a tokenizer.json; `first` is the name of the special token that texts begin with."""
    post_processor: dict[str, Any] = _BYTE_LEVEL
    if first is not None:
        steps = [_BYTE_LEVEL, beginning_with(first, special_ids[first])]
        post_processor = {"type": "Sequence", "processors": steps}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **plain} for name, i in special_ids.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_SPLIT, _BYTE_LEVEL]},
        "post_processor": post_processor,
        "decoder": _BYTE_LEVEL | {"add_prefix_space": True, "use_regex": True},
        "model": {
            **{key: values[0] for key, values in _MODEL.items()},
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {written_as(token): i for token, i in ranks.items()},
            "merges": merges_of(ranks),
        },
    }
    return json.dumps(content, ensure_ascii=False)


def beginning_with(name: str, token: int) -> dict[str, Any]:
    """The step of a tokenizer.json that puts one special token before every text."""
    first, second = (
        [{"SpecialToken": {"id": name, "type_id": i}}, {"Sequence": {"id": text, "type_id": i}}]
        for i, text in enumerate("AB")
    )
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, *second],
        "special_tokens": {name: {"id": name, "ids": [token], "tokens": [name]}},
    }
