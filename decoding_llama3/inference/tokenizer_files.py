"""Find the tokenizer of a checkpoint, and the names of the tokens that were added to its vocabulary."""

import importlib.util
import json
from os import PathLike
from pathlib import Path

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.data import data_directory
from decoding_llama3.tokenizer import Tokenizer

MAX_UNNAMED = 1024  # rows that only round an embedding up, to a multiple of 8, 64 or at most this


def load_tokenizer(path: str | PathLike, checkpoint: str | PathLike | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint directory (or a tokenizer.model), of "tiny", or "llama3" for Meta's own.

    A fine-tuned model may have more rows in its embedding than the tokenizer.model has tokens. These ids decode
    too: to the name that a tokenizer.json beside the model has for them under added_tokens, else to
    `<|added_token_128256|>` and so on. No text is encoded to them; `special_ids` has them by name. Where `path`
    is not the directory of the model, `checkpoint` is.

    Raises ValueError where there is no tokenizer, and where it belongs to another model: the embedding has fewer
    rows than there are tokens, or more than 1,024 rows that nothing names.
    """
    try:
        file, directory = _find(path)
        tokenizer = Tokenizer(file)
        directory = directory if checkpoint is None else _directory(checkpoint)
        ids = range(tokenizer.n_vocab, _embedding_rows(directory, tokenizer.n_vocab, file))
        if directory is None or not ids:
            return tokenizer
        return Tokenizer(file, _added_tokens(directory, ids, tokenizer.special_ids))
    except OSError as error:
        raise ValueError(f"cannot look for the tokenizer of {path}: {error.strerror}") from None


def _find(path: str | PathLike) -> tuple[Path, Path | None]:
    """The tokenizer.model, and the directory of its model if that is known."""
    if path == "llama3":
        return _find_llama3(), None
    directory = _directory(path)
    if directory.is_file():
        return directory, None
    for file in (directory / "tokenizer.model", directory / "original" / "tokenizer.model"):
        if file.is_file():
            return file, directory
    if (directory / "tokenizer.json").is_file():
        raise ValueError(
            f"{directory} has only a tokenizer.json, which is not read here: if the model is a Llama 3, use "
            "load_tokenizer('llama3'), or --tokenizer llama3 on the command line, which is the same tokenizer; "
            "else put its tokenizer.model there"
        )
    raise ValueError(
        f"no tokenizer.model in {directory}: put the one of the checkpoint there, or use 'llama3' or 'tiny'"
    )


def _directory(path: str | PathLike) -> Path:
    return data_directory() / "tiny-llama3" if path == "tiny" else Path(path)


def _find_llama3() -> Path:
    package = importlib.util.find_spec("llama_models")  # finds the folder without running the package
    if package is not None:
        for folder in package.submodule_search_locations or ():
            file = Path(folder) / "llama3" / "tokenizer.model"
            if file.is_file():
                return file
    raise ValueError("Meta's tokenizer is not on this machine: run 'pip install llama-models'")


def _embedding_rows(directory: Path | None, n_tokens: int, file: Path) -> int:
    """Rows of the model's embedding, at least `n_tokens`; `n_tokens` where no configuration says it."""
    rows = n_tokens
    if directory is not None and (directory / "config.json").is_file():
        rows = LlamaConfig.from_huggingface(directory / "config.json").vocab_size
    elif directory is not None and (directory / "params.json").is_file():
        rows = LlamaConfig.from_params_json(directory / "params.json", n_tokens).vocab_size
    if rows < n_tokens:
        raise ValueError(
            f"{file} has {n_tokens} tokens, but the model in {directory} has an embedding of {rows}: they belong "
            "to different models; give the tokenizer.model that the model was trained with"
        )
    return rows


def _added_tokens(directory: Path, ids: range, known: dict[str, int]) -> list[str]:
    """A name for each of `ids`, none of them one of `known`."""
    listed = {name: token for token, name in _names_in(directory / "tokenizer.json") if token in ids}
    names = {token: name for name, token in listed.items() if name not in known}
    if len(ids) - len(names) > MAX_UNNAMED:
        raise ValueError(
            f"the tokenizer has {ids.start} tokens, but the model in {directory} has an embedding of {ids.stop}, "
            f"of which its tokenizer.json names {len(names)} more: they belong to different models; give the "
            "tokenizer.model that the model was trained with"
        )
    return [names.get(token, f"<|added_token_{token}|>") for token in ids]


def _names_in(file: Path) -> list[tuple[int, str]]:
    # Llama 3 in Hugging Face's format has no other list of them: it never had a slow tokenizer.
    if not file.is_file():
        return []
    try:
        tokens = [(entry["id"], entry["content"]) for entry in json.loads(file.read_bytes())["added_tokens"]]
        if all(type(token) is int and type(name) is str and name.encode() for token, name in tokens):
            return tokens
        found = "an entry of another form"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
    raise ValueError(f"{file} is damaged: expected added_tokens with an id and a content each, found {found}")
