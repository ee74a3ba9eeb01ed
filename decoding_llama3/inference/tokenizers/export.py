"""The files of a tokenizer in Hugging Face's format: vocabulary, special tokens, stop ids, chat template."""

import json
from typing import Any

from decoding_llama3.inference.tokenizers.library import LibraryTokenizer
from decoding_llama3.inference.tokenizers.llama3_json import beginning_with, llama3_json
from decoding_llama3.inference.tokenizers.model import ModelTokenizer
from decoding_llama3.inference.tokenizers.pieces import PieceTokenizer
from decoding_llama3.json_files import read_json
from decoding_llama3.tokenizer import Tokenizer

GENERATION, SETTINGS, TEMPLATE = "generation_config.json", "tokenizer_config.json", "chat_template.jinja"
VOCABULARY, PIECES = "tokenizer.json", "tokenizer.model"


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """By name, the files from which `load_tokenizer` and transformers read a tokenizer and where texts end."""
    stops = list(tokenizer.stop_ids)
    files: dict[str, Any] = {
        GENERATION: {"bos_token_id": tokenizer.bos_id, "eos_token_id": stops[0] if len(stops) == 1 else stops},
        SETTINGS: _settings(tokenizer),
    }
    if isinstance(tokenizer, PieceTokenizer):
        files[PIECES] = tokenizer.processor.serialized_model_proto()
    elif isinstance(tokenizer, LibraryTokenizer):
        files[VOCABULARY] = _library_json(tokenizer)
    else:
        special = {*tokenizer.special_ids.values()}
        ordinary = (token for token in range(tokenizer.n_vocab) if token not in special)
        ranks = {tokenizer.token_bytes(token): token for token in ordinary}
        files[VOCABULARY] = llama3_json(ranks, tokenizer.special_ids, _first(tokenizer))
    if (template := getattr(tokenizer, "template", None)) is not None:
        files[TEMPLATE] = template.text.encode()
    return {name: _as_bytes(content) for name, content in files.items()}


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    names = {token: name for name, token in tokenizer.special_ids.items()}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names.get(tokenizer.bos_id),
        "eos_token": names.get(tokenizer.eos_id),
        "clean_up_tokenization_spaces": False,
    }
    if isinstance(tokenizer, PieceTokenizer):
        unknown = tokenizer.processor.id_to_piece(tokenizer.processor.unk_id())
        settings |= {"tokenizer_class": "LlamaTokenizer"}
        settings |= {"unk_token": unknown, "add_bos_token": tokenizer.adds_bos, "add_eos_token": False}
        n_pieces = tokenizer.processor.get_piece_size()
        added = {token: {"content": name, "special": True} for token, name in names.items() if token >= n_pieces}
        settings["added_tokens_decoder"] = added
    return settings


def _first(tokenizer: Tokenizer) -> str | None:
    """The name of the special token that texts begin with."""
    adds_bos = not isinstance(tokenizer, ModelTokenizer) or tokenizer.adds_bos
    return tokenizer.decode([tokenizer.bos_id]) if adds_bos else None


def _library_json(tokenizer: LibraryTokenizer) -> dict[str, Any]:
    content = read_json(tokenizer.library.to_str(), VOCABULARY)[0]
    first = _first(tokenizer)
    if first is not None and content.get("post_processor") is None:
        content["post_processor"] = beginning_with(first, tokenizer.bos_id)
    return content


def _as_bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()
