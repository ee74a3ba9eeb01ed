"""The tokenizer in the settings of a GGUF file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decoding_llama3.inference.checkpoint.gguf_header import read_header
from decoding_llama3.inference.tokenizers.library import LibraryTokenizer
from decoding_llama3.inference.tokenizers.model import ModelTokenizer
from decoding_llama3.inference.tokenizers.needed import needed
from decoding_llama3.inference.tokenizers.pieces import CONTROL, UNKNOWN, USER_DEFINED, PieceTokenizer, piece_model
from decoding_llama3.inference.tokenizers.ranks import RankTokenizer, ranks_in
from decoding_llama3.inference.tokenizers.template import ChatTemplate
from decoding_llama3.json_files import shown
from decoding_llama3.tokenizer import SPLIT_PATTERN

_LISTS = ("tokens", "token_type", "merges", "scores")


def gguf_tokenizer(path: Path) -> ModelTokenizer:
    """The tokenizer of the model in a GGUF file; ValueError where it is damaged, or of a kind not known here."""
    settings = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in read_header(path)[0].items()
        if key.startswith("tokenizer.")
    }
    _check(settings, path)
    kind = settings.get("model")
    if kind == "gpt2":
        return _byte_level(settings, path)
    if kind == "llama":
        return _pieces(settings, path)
    raise ValueError(f"{path} has a tokenizer of the kind {shown(kind)}; 'gpt2' and 'llama' are known here")


def _byte_level(settings: dict[str, Any], path: Path) -> ModelTokenizer:
    split = _SPLITS.get(settings.get("pre", ""))
    if split is None:
        raise ValueError(
            f"{path} cuts texts by the rule {shown(settings.get('pre'))} before it encodes them, which is not "
            f"known here; known are {', '.join(_SPLITS)}"
        )
    tokens, kinds = settings["tokens"], settings["token_type"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ", 1)) for merge in settings.get("merges", [])]
    for merge in merges:
        if len(merge) != 2 or any(part not in vocabulary for part in (*merge, "".join(merge))):
            raise ValueError(f"{path} is damaged: the merge {shown(merge)} makes no token; download it again")
    special = {token: i for i, token in enumerate(tokens) if kinds[i] in (CONTROL, UNKNOWN)}
    what = {"special_ids": special, **_ends(settings, path)}
    if split is _llama3 and USER_DEFINED not in kinds:
        ordinary = {token: i for token, i in vocabulary.items() if token not in special}
        if (ranks := ranks_in(ordinary, merges)) is not None:
            return RankTokenizer(ranks, **what)
    return LibraryTokenizer(_library_tokenizer(vocabulary, merges, split, kinds, path), True, **what)


def _library_tokenizer(
    vocabulary: dict[str, int],
    merges: list[tuple[str, ...]],
    split: Callable[[Any, Any], Any],
    kinds: Sequence[int],
    path: Path,
) -> Any:
    library: Any = needed("tokenizers", f"the tokenizer of {path}")
    model = library.models.BPE(vocabulary, merges, ignore_merges=split is _llama3)
    tokenizer = library.Tokenizer(model)
    tokenizer.pre_tokenizer = split(library.pre_tokenizers, library.Regex)
    tokenizer.decoder = library.decoders.ByteLevel()
    added = library.AddedToken
    for token, kind in zip(vocabulary, kinds, strict=True):
        if kind in (CONTROL, UNKNOWN):
            tokenizer.add_special_tokens([added(token, special=True, normalized=False)])
        elif kind == USER_DEFINED:
            tokenizer.add_tokens([added(token, special=False, normalized=False)])
    return tokenizer


def _smollm(pre: Any, _: Any) -> Any:
    """Each digit alone, then GPT-2's pattern."""
    return pre.Sequence([pre.Digits(individual_digits=True), _gpt2(pre, _)])


def _gpt2(pre: Any, _: Any) -> Any:
    return pre.ByteLevel(add_prefix_space=False, use_regex=True)


def _llama3(pre: Any, regex: Any) -> Any:
    words = pre.Split(regex(SPLIT_PATTERN), behavior="isolated")
    return pre.Sequence([words, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


_SPLITS: dict[str, Callable[[Any, Any], Any]] = {  # by `tokenizer.ggml.pre`
    "smollm": _smollm,
    "gpt-2": _gpt2,
    "llama-bpe": _llama3,
    "llama3": _llama3,
    "llama-v3": _llama3,
}


def _pieces(settings: dict[str, Any], path: Path) -> PieceTokenizer:
    if len(settings.get("scores", ())) != len(settings["tokens"]):
        raise ValueError(f"{path} is damaged: not every token has a score; download it again")
    kinds = [int(kind) for kind in settings["token_type"]]
    add_space = settings.get("add_space_prefix", True) is not False
    model = piece_model(settings["tokens"], map(float, settings["scores"]), kinds, add_space)
    return PieceTokenizer(model, str(path), **_ends(settings, path, adds_bos=True))


def _ends(settings: dict[str, Any], path: Path, adds_bos: bool = False) -> dict[str, Any]:
    """Where texts begin and end, and the template of chats."""
    template = settings.get("tokenizer.chat_template")
    return {
        "bos_id": settings.get("bos_token_id"),
        "eos_id": settings.get("eos_token_id"),
        "adds_bos": settings.get("add_bos_token", adds_bos or settings.get("pre") in ("llama-bpe", "llama3")),
        "stop_ids": [settings[key] for key in ("eot_token_id", "eom_token_id") if key in settings],
        "template": ChatTemplate(template, str(path)) if template else None,
    }


def _check(settings: dict[str, Any], path: Path) -> None:
    """What is used of the settings has its type, and ids are those of tokens."""
    tokens = settings.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(f"{path} has no tokenizer in it: pass the one of the model it was made of")
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"{path} is damaged: some of its {len(tokens):,} tokens are the same; download it again")
    kinds = settings.setdefault("token_type", [1] * len(tokens))
    if len(kinds) != len(tokens) or not set(map(int, kinds)) <= set(range(1, 7)):
        raise ValueError(f"{path} is damaged: not each of its tokens has a type of 1 to 6; download it again")
    for key, kind in (("merges", list), ("pre", str), ("tokenizer.chat_template", str), ("add_bos_token", bool)):
        if key in settings and not isinstance(settings[key], kind):
            raise ValueError(f"{path} is damaged: {key} is {shown(settings[key])}, expected a {kind.__name__}")
    for key in ("bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id"):
        token = settings.get(key, 0)
        if type(token) is not int or token not in range(len(tokens)):
            raise ValueError(f"{path} is damaged: {key} is {shown(token)}, and there are {len(tokens):,} tokens")
