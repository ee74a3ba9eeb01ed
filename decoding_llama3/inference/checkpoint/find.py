"""Find a checkpoint, and the format that it is in."""

import os
from os import PathLike
from pathlib import Path

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.gguf import SUFFIX, is_gguf, open_gguf, read_gguf_config
from decoding_llama3.inference.checkpoint.hub_cache import HUB_NAME
from decoding_llama3.inference.checkpoint.huggingface import ADAPTER_ALONE, HUGGINGFACE
from decoding_llama3.inference.checkpoint.meta import META
from decoding_llama3.inference.checkpoint.named import named_model
from decoding_llama3.inference.checkpoint.stored import Checkpoint, Format
from decoding_llama3.json_files import shown

FORMATS = (HUGGINGFACE, META)  # in a folder with configuration and weights of both, the first is taken


def open_checkpoint(path: str | PathLike) -> Checkpoint:
    """The checkpoint in a directory, in a GGUF file, or of a name, opened: no weight is read yet.

    Raises ValueError where there is none, or one that is damaged or contradicts itself.
    """
    place = checkpoint_path(path)
    return open_gguf(place) if place.is_file() else _format(place).open(place)


def read_config(path: str | PathLike) -> LlamaConfig:
    """The configuration of a checkpoint, its weights untouched; ValueError as in `open_checkpoint`."""
    place = checkpoint_path(path)
    return read_gguf_config(place) if place.is_file() else _format(place).read_config(place)


def checkpoint_path(path: str | PathLike) -> Path:
    """The directory or the GGUF file of a checkpoint, which has a path or one of the names of `named_model`.

    Raises TypeError for what is no path, ValueError where nothing is, or a directory without a configuration.
    """
    if not isinstance(path, (str, PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"the path of a checkpoint is a str or a Path, found {type(path).__name__}")
    directory = named_model(path) or Path(path)
    if os.path.isfile(directory) and is_gguf(directory):
        return directory
    if os.fspath(path) == "" or not os.path.isdir(directory):  # unlike Path.is_dir, never an error
        raise ValueError(_no_checkpoint(os.fspath(path)))
    if not any(os.path.isfile(directory / format.config) for format in FORMATS):
        raise ValueError(f"{directory} {_why_no_checkpoint(directory)}")
    return directory


def _format(directory: Path) -> Format:
    configured = [format for format in FORMATS if os.path.isfile(directory / format.config)]
    return next((format for format in configured if any(directory.glob(format.weights))), configured[0])


def _no_checkpoint(path: str) -> str:
    name = path if path.isprintable() and 0 < len(path) <= 200 else shown(path, 200)
    if os.path.isfile(path):
        return f"{name} is a file: pass the directory of the checkpoint, with its configuration, or a GGUF file"
    if HUB_NAME.fullmatch(path):
        return (
            f"no directory {path}: if it is a model on the Hugging Face Hub, run "
            f"'decoding-llama3 download {path}', once"
        )
    return (
        f"no directory {name}, nor a model of that name: pass a Hugging Face or Meta checkpoint directory, a GGUF "
        "file, the name of a model that Ollama has pulled, 'smollm2' or 'tiny'"
    )


def _why_no_checkpoint(directory: Path) -> str:
    if os.path.isfile(directory / "adapter_config.json"):
        return ADAPTER_ALONE
    if models := sorted(directory.glob("models--*--*")):
        return f"is a cache of the Hugging Face Hub: pass one of the folders in {shown(models[0].name)}/snapshots"
    if hashes := sorted(directory.glob("snapshots/*/")):
        first = shown(f"snapshots/{hashes[0].name}")
        return f"is a model in the cache of the Hugging Face Hub: pass a snapshot in it, such as {first}"
    if files := sorted(directory.glob(f"*{SUFFIX}")):
        return f"holds GGUF files: pass one of them, such as {shown(files[0].name)}"
    return "has neither config.json (Hugging Face) nor params.json (Meta): is it a checkpoint?"
