"""Find the tokenizer of a checkpoint: in its directory, in its GGUF file, or by a name."""

import importlib.util
from os import PathLike
from pathlib import Path

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.gguf import is_gguf
from decoding_llama3.inference.checkpoint.named import named_model
from decoding_llama3.inference.checkpoint.stored import read_stated
from decoding_llama3.inference.tokenizers.formats import FORMATS, LLAMA2, LLAMA3, LLAMA31
from decoding_llama3.inference.tokenizers.gguf import gguf_tokenizer
from decoding_llama3.inference.tokenizers.huggingface import (
    added_names,
    chat_template,
    json_tokenizer,
    stated_ends,
    stop_ids,
)
from decoding_llama3.inference.tokenizers.llama3 import Llama3Tokenizer
from decoding_llama3.inference.tokenizers.model import ModelTokenizer
from decoding_llama3.inference.tokenizers.pieces import PieceTokenizer, is_piece_model
from decoding_llama3.inference.tokenizers.ranks import has_headers
from decoding_llama3.inference.tokenizers.template import ChatTemplate
from decoding_llama3.tokenizer import Tokenizer

OfModel = ModelTokenizer | Llama3Tokenizer
MAX_UNNAMED = 1024  # rows that only round an embedding up, to a multiple of 8, 64 or at most this


def load_tokenizer(path: str | PathLike, checkpoint: str | PathLike | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint, which is given as for `load_model`, or "llama3" for Meta's own.

    Of the files in a directory a tokenizer.model goes before a tokenizer.json, for stop ids a
    generation_config.json before config.json, and for chats a chat_template.jinja before tokenizer_config.json.

    A fine-tuned model may have more rows in its embedding than the tokenizer.model has tokens. These ids decode
    too: to the name that a tokenizer.json beside the model has for them under added_tokens, else to
    `<|added_token_128256|>` and so on. No text is encoded to them; `special_ids` has them by name. Where `path`
    is not the directory of the model, `checkpoint` is.

    Raises ValueError where there is no tokenizer, and where it belongs to another model: the embedding has fewer
    rows than there are tokens, or more than 1,024 rows that nothing names; or an id that ends texts has no row.
    """
    try:
        file, directory = _find(path)
        directory = directory if checkpoint is None else _directory(checkpoint)
        tokenizer = _read(file, directory)
        config = _config(directory, tokenizer.n_vocab)
        if directory is not None and config is not None:
            tokenizer = _filled_up(tokenizer, config.vocab_size, file, directory)
            tokenizer.template = tokenizer.template or _own_format(tokenizer, config, directory)
        _check_stop_ids(tokenizer, directory)
        return tokenizer
    except OSError as error:
        raise ValueError(f"cannot look for the tokenizer of {path}: {error.strerror}") from None


def _find(path: str | PathLike) -> tuple[Path, Path | None]:
    """The file of the tokenizer, and the directory of its model if that is known."""
    if path == "llama3":
        return _find_llama3(), None
    directory = named_model(path) or Path(path)
    if directory.is_file():
        return directory, None
    for name in ("tokenizer.model", "original/tokenizer.model", "tokenizer.json"):
        if (directory / name).is_file():
            return directory / name, directory
    raise ValueError(
        f"no tokenizer.model or tokenizer.json in {directory}: put the one of the checkpoint there, or use "
        "'llama3' or 'tiny'"
    )


def _read(file: Path, directory: Path | None) -> OfModel:
    """The tokenizer in a file of any kind, with what the directory says of chats and stops."""
    if is_gguf(file):
        return gguf_tokenizer(file)
    if file.suffix == ".json":
        return json_tokenizer(file, directory or file.parent)
    if is_piece_model(file):
        what = {"template": chat_template(directory), "stop_ids": stop_ids(directory)}
        return PieceTokenizer(file.read_bytes(), str(file), stated_ends(directory), **what)
    return Llama3Tokenizer(file, (), directory)


def _directory(path: str | PathLike) -> Path | None:
    directory = named_model(path) or Path(path)
    return directory if directory.is_dir() else None


def _find_llama3() -> Path:
    package = importlib.util.find_spec("llama_models")  # finds the folder without running the package
    if package is not None:
        for folder in package.submodule_search_locations or ():
            file = Path(folder) / "llama3" / "tokenizer.model"
            if file.is_file():
                return file
    raise ValueError("Meta's tokenizer is not on this machine: run 'pip install llama-models'")


def _config(directory: Path | None, n_tokens: int) -> LlamaConfig | None:
    """The configuration in a directory, if there is one; Llama 2's params.json has no size of the vocabulary."""
    if directory is not None and (config := directory / "config.json").is_file():
        return read_stated(lambda: LlamaConfig.from_huggingface(config))
    if directory is not None and (params := directory / "params.json").is_file():
        return read_stated(lambda: LlamaConfig.from_params_json(params, n_tokens))
    return None


def _filled_up(tokenizer: OfModel, rows: int, file: Path, directory: Path) -> OfModel:
    """With a name for each row of the model's embedding."""
    n_tokens = tokenizer.n_vocab
    if rows < n_tokens:
        raise ValueError(
            f"{file} has {n_tokens} tokens, but the model in {directory} has an embedding of {rows}: they belong "
            "to different models; give the tokenizer that the model was trained with"
        )
    if rows == n_tokens:
        return tokenizer
    added = _added_tokens(directory, range(n_tokens, rows), tokenizer.special_ids)
    if isinstance(tokenizer, ModelTokenizer):
        tokenizer.add(added)
        return tokenizer
    return Llama3Tokenizer(file, added, directory)


def _own_format(tokenizer: OfModel, config: LlamaConfig, directory: Path) -> ChatTemplate | None:
    """The chat format of a model whose folder has no template: by its vocabulary and its RoPE.

    None for a folder of Hugging Face's without one that is no Llama 3.1: it holds a base model.
    """
    of_meta = not (directory / "config.json").is_file()
    if isinstance(tokenizer, PieceTokenizer):
        text = LLAMA2 if of_meta else None
    elif not has_headers(tokenizer.special_ids):
        text = None
    elif config.rope_scaling is not None:
        text = LLAMA31
    else:
        text = LLAMA3 if of_meta else None
    return text and ChatTemplate(text, FORMATS[text])


def _check_stop_ids(tokenizer: Tokenizer, directory: Path | None) -> None:
    if beyond := [token for token in tokenizer.stop_ids if token >= tokenizer.n_vocab]:
        raise ValueError(
            f"the files in {directory} end a text with the id {beyond[0]}, but the model has {tokenizer.n_vocab} "
            "tokens and would never give it: correct eos_token_id in generation_config.json or config.json"
        )


def _added_tokens(directory: Path, ids: range, known: dict[str, int]) -> list[str]:
    """A name for each of `ids`, none of them one of `known`."""
    listed = {name: token for token, name in added_names(directory) if token in ids}
    names = {token: name for name, token in listed.items() if name not in known}
    if len(ids) - len(names) > MAX_UNNAMED:
        raise ValueError(
            f"the tokenizer has {ids.start} tokens, but the model in {directory} has an embedding of {ids.stop}, "
            f"of which its tokenizer.json names {len(names)} more: they belong to different models; give the "
            "tokenizer.model that the model was trained with"
        )
    return [names.get(token, f"<|added_token_{token}|>") for token in ids]
