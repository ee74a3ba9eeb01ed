"""Find a checkpoint, and the format that it is in."""

import os
import re
from os import PathLike
from pathlib import Path

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.huggingface import ADAPTER_ALONE, HUGGINGFACE
from decoding_llama3.inference.checkpoint.meta import META
from decoding_llama3.inference.checkpoint.stored import Checkpoint, Format
from decoding_llama3.inference.checkpoint.untrusted import quoted
from decoding_llama3.inference.data import data_directory

FORMATS = (HUGGINGFACE, META)  # in a folder with configuration and weights of both, the first is taken


def open_checkpoint(path: str | PathLike) -> Checkpoint:
    """The checkpoint in a directory, or "tiny", opened: no weight is read yet.

    Raises ValueError where there is none, or one that is damaged or contradicts itself.
    """
    directory = checkpoint_directory(path)
    return _format(directory).open(directory)


def read_config(path: str | PathLike) -> LlamaConfig:
    """The configuration of a checkpoint, its weights untouched; ValueError as in `open_checkpoint`."""
    directory = checkpoint_directory(path)
    return _format(directory).read_config(directory)


def checkpoint_directory(path: str | PathLike) -> Path:
    """The directory of a checkpoint; "tiny" is the one in `data/`.

    Raises TypeError for what is no path, ValueError where no directory is, or no configuration in it.
    """
    if not isinstance(path, (str, PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"the path of a checkpoint is a str or a Path, found {type(path).__name__}")
    directory = data_directory() / "tiny-llama3" if path == "tiny" else Path(path)
    if os.fspath(path) == "" or not os.path.isdir(directory):  # unlike Path.is_dir, never an error
        raise ValueError(_no_directory(os.fspath(path)))
    if not any(os.path.isfile(directory / format.config) for format in FORMATS):
        raise ValueError(f"{directory} {_why_no_checkpoint(directory)}")
    return directory


def _format(directory: Path) -> Format:
    configured = [format for format in FORMATS if os.path.isfile(directory / format.config)]
    return next((format for format in configured if any(directory.glob(format.weights))), configured[0])


def _no_directory(path: str) -> str:
    name = path if path.isprintable() and 0 < len(path) <= 200 else quoted(path, 200)
    if os.path.isfile(path):
        return f"{name} is a file: pass the directory of the checkpoint, with its configuration"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        return (
            f"no directory {path}: if it is a model on the Hugging Face Hub, download it with `hf download {path} "
            f"--local-dir {path.split('/')[1]}`, and pass that directory"
        )
    return f"no directory {name}: pass a Hugging Face or Meta checkpoint directory, or 'tiny'"


def _why_no_checkpoint(directory: Path) -> str:
    if os.path.isfile(directory / "adapter_config.json"):
        return ADAPTER_ALONE
    if models := sorted(directory.glob("models--*--*")):
        return f"is a cache of the Hugging Face Hub: pass one of the folders in {quoted(models[0].name)}/snapshots"
    if hashes := sorted(directory.glob("snapshots/*/")):
        first = quoted(f"snapshots/{hashes[0].name}")
        return f"is a model in the cache of the Hugging Face Hub: pass a snapshot in it, such as {first}"
    return "has neither config.json (Hugging Face) nor params.json (Meta): is it a checkpoint?"
