"""Find the tokenizer of a checkpoint."""

import importlib.util
from os import PathLike
from pathlib import Path

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.data import data_directory
from decoding_llama3.tokenizer import Tokenizer


def load_tokenizer(path: str | PathLike) -> Tokenizer:
    """The tokenizer of a checkpoint directory (or a tokenizer.model), of "tiny", or "llama3" for Meta's own.

    Raises ValueError where there is none, or one with another number of tokens than the model's embedding.
    """
    if path == "llama3":
        return Tokenizer(_find_llama3())
    path = data_directory() / "tiny-llama3" if path == "tiny" else Path(path)
    if path.is_file():
        return Tokenizer(path)
    for file in (path / "tokenizer.model", path / "original" / "tokenizer.model"):
        if file.is_file():
            return _check_vocabulary(Tokenizer(file), path, file)
    if (path / "tokenizer.json").is_file():
        raise ValueError(
            f"{path} has only a tokenizer.json, which is not read here: if the model is a Llama 3, use "
            "load_tokenizer('llama3'), which is the same tokenizer; else put its tokenizer.model there"
        )
    raise ValueError(
        f"no tokenizer.model in {path}: put the one of the checkpoint there, or use 'llama3' or 'tiny'"
    )


def _find_llama3() -> Path:
    package = importlib.util.find_spec("llama_models")  # finds the folder without running the package
    if package is not None:
        for folder in package.submodule_search_locations:
            file = Path(folder) / "llama3" / "tokenizer.model"
            if file.is_file():
                return file
    raise ValueError("Meta's tokenizer is not on this machine: run 'pip install llama-models'")


def _check_vocabulary(tokenizer: Tokenizer, directory: Path, file: Path) -> Tokenizer:
    if (directory / "config.json").is_file():
        vocab_size = LlamaConfig.from_huggingface(directory / "config.json").vocab_size
    elif (directory / "params.json").is_file():
        vocab_size = LlamaConfig.from_params_json(directory / "params.json", tokenizer.n_vocab).vocab_size
    else:
        return tokenizer
    if vocab_size != tokenizer.n_vocab:
        raise ValueError(
            f"{file} has {tokenizer.n_vocab} tokens, but the model beside it has an embedding of "
            f"{vocab_size}: they belong to different models"
        )
    return tokenizer
