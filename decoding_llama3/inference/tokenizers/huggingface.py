"""What the files of a Hugging Face directory say of a tokenizer: tokenizer.json and the settings beside it."""

import re
from pathlib import Path
from typing import Any

from decoding_llama3.inference.checkpoint.untrusted import check_file
from decoding_llama3.inference.tokenizers.library import LibraryTokenizer
from decoding_llama3.inference.tokenizers.llama3_json import llama3_vocabulary
from decoding_llama3.inference.tokenizers.model import ModelTokenizer
from decoding_llama3.inference.tokenizers.needed import needed
from decoding_llama3.inference.tokenizers.ranks import RankTokenizer
from decoding_llama3.inference.tokenizers.template import ChatTemplate
from decoding_llama3.json_files import read_json, shown

LARGEST_FILE = 64 * 2**20  # bytes; the tokenizer.json of Llama 3.1 has 17 million


def json_tokenizer(file: Path, directory: Path) -> ModelTokenizer:
    """The tokenizer of a tokenizer.json: Llama 3's as tiktoken runs it, another as the library tokenizers does.

    A damaged file raises ValueError.
    """
    check_file(file)
    content = read_json(file, file.name, LARGEST_FILE)[0]
    settings = _settings(directory, "tokenizer_config.json")
    what = {"template": chat_template(directory), "stop_ids": stop_ids(directory)}
    if (llama3 := llama3_vocabulary(content)) is not None:
        ids = llama3.special_ids
        bos, eos = (ids.get(_name_of(settings.get(f"{kind}_token")) or "") for kind in ("bos", "eos"))
        return RankTokenizer(llama3.ranks, special_ids=ids, **_ends(llama3.first, bos, eos, settings), **what)
    tokenizer, first = _of_library(file)
    special = {
        entry["content"]: entry["id"]
        for entry in content.get("added_tokens") or ()
        if isinstance(entry, dict) and entry.get("special") and isinstance(entry.get("content"), str)
    }
    bos, eos = (_id_of(settings.get(f"{kind}_token"), tokenizer) for kind in ("bos", "eos"))
    is_byte_level = _is_byte_level(content.get("decoder"), file)
    return LibraryTokenizer(
        tokenizer, is_byte_level, special_ids=special, **_ends(first, bos, eos, settings), **what
    )


def _of_library(file: Path) -> tuple[Any, int | None]:
    """The tokenizer of the library, and the token that it puts before a text, if it does."""
    library: Any = needed("tokenizers", f"{file}")
    text = _text(file)
    try:
        tokenizer = library.Tokenizer.from_str(text)
        first = tokenizer.encode("", add_special_tokens=True).ids[:1]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are no Exception
        raise ValueError(f"{file} is damaged or of an unknown kind ({shown(str(error), 120)})") from None
    return tokenizer, first[0] if first else None


def _ends(first: int | None, bos: int | None, eos: int | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Where texts begin and end: as the tokenizer.json says, and else as the settings beside it do."""
    adds_bos = first is not None or settings.get("add_bos_token") is True
    return {"bos_id": bos if first is None else first, "eos_id": eos, "adds_bos": adds_bos}


def added_names(directory: Path) -> list[tuple[int, str]]:
    """Ids and names of the tokens that a tokenizer.json lists under added_tokens.

    Without such a file, of those under added_tokens_decoder in a tokenizer_config.json. A damaged file raises
    ValueError.
    """
    # Llama 3 in Hugging Face's format has only the first list: it never had a slow tokenizer.
    file, names = directory / "tokenizer.json", []
    if file.is_file():
        entries = read_json(file, file.name, LARGEST_FILE)[0].get("added_tokens")
    else:
        file = directory / "tokenizer_config.json"
        decoder = _settings(directory, file.name).get("added_tokens_decoder", {})
        if not isinstance(decoder, dict):
            raise ValueError(f"{file} sets added_tokens_decoder to {shown(decoder)}, expected an object")
        entries = [
            {**entry, "id": int(token)} if isinstance(entry, dict) and token.isdecimal() else {token: entry}
            for token, entry in decoder.items()
        ]
    for entry in entries if isinstance(entries, list) else [entries]:
        if not (isinstance(entry, dict) and type(entry.get("id")) is int and _is_text(entry.get("content"))):
            found = shown(entry)
            raise ValueError(f"{file} is damaged: expected added_tokens with an id and a text each, found {found}")
        names.append((entry["id"], entry["content"]))
    return names


def _is_text(content: object) -> bool:
    """Whether it can be written in a file: JSON may hold half a character."""
    return isinstance(content, str) and content != "" and not re.search(r"[\ud800-\udfff]", content)


def chat_template(directory: Path | None) -> ChatTemplate | None:
    """The template of chats in a directory, of whose places the first is taken; None where there is none.

    A template that is no text raises ValueError.
    """
    if directory is None:
        return None
    if (file := directory / "chat_template.jinja").is_file():
        return ChatTemplate(_text(file), str(file))
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _settings(directory, name).get("chat_template")
        if isinstance(template, list):  # several, each with a name
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default")
        if template is not None and not isinstance(template, str):
            raise ValueError(f"{directory / name} sets chat_template to {shown(template)}, expected a text")
        if template:
            return ChatTemplate(template, str(directory / name))
    return None


def stop_ids(directory: Path | None) -> list[int]:
    """The ids that end a text: eos_token_id, one or a list, in generation_config.json, or else in config.json.

    What is no id raises ValueError.
    """
    if directory is None:
        return []
    for name in ("generation_config.json", "config.json"):
        stated = _settings(directory, name).get("eos_token_id")
        ids = stated if isinstance(stated, list) else [] if stated is None else [stated]
        if any(type(token) is not int or token < 0 for token in ids):
            found = shown(stated)
            raise ValueError(f"{directory / name} sets eos_token_id to {found}, expected an id or a list of ids")
        if ids:
            return ids
    return []


def stated_ends(directory: Path | None) -> dict[str, Any]:
    """What a tokenizer_config.json says beside a tokenizer.model: the names of bos and eos, and whether bos is put
    before texts; nothing where it says nothing.
    """
    settings = {} if directory is None else _settings(directory, "tokenizer_config.json")
    names = {f"{kind}_name": _name_of(settings.get(f"{kind}_token")) for kind in ("bos", "eos")}
    adds = settings.get("add_bos_token")
    stated = {key: name for key, name in names.items() if name}
    return stated | {"adds_bos": adds} if isinstance(adds, bool) else stated


def _settings(directory: Path, name: str) -> dict[str, Any]:
    return read_json(directory / name, name)[0] if (directory / name).is_file() else {}


def _text(file: Path) -> str:
    check_file(file)
    if (size := file.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{file} has {size:,} bytes, expected at most {LARGEST_FILE:,}")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text: download it again") from None


def _name_of(token: object) -> str | None:
    """The name of a special token, which settings hold as its text, or as an object with its text."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else None


def _id_of(token: object, tokenizer: Any) -> int | None:
    name = _name_of(token)
    return None if name is None else tokenizer.token_to_id(name)


def _is_byte_level(decoder: object, file: Path) -> bool:
    """Whether a token's text has a character for each byte, or is SentencePiece's."""
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
    kinds = {step.get("type") for step in steps if isinstance(step, dict)}
    if "ByteLevel" in kinds:
        return True
    if kinds & {"ByteFallback", "Metaspace"}:
        return False
    found = shown(sorted(map(str, kinds)))
    raise ValueError(f"{file} decodes by {found}; ByteLevel, ByteFallback and Metaspace are known here")
