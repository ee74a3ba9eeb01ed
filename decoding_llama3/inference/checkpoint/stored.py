"""A checkpoint that was opened: its configuration, and tensors that are read one at a time, under our names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from decoding_llama3.config import LlamaConfig

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # what weights may be stored and kept as


def check_dtype(dtype: torch.dtype) -> None:
    """Raise TypeError or ValueError if `dtype` is none that weights are kept in."""
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype is a torch.dtype such as torch.bfloat16, found {dtype!r}")
    if dtype not in FLOATS:
        raise ValueError(
            f"dtype is one of {', '.join(map(str, FLOATS))}, found {dtype}: for one byte a weight, use "
            "quantize='int8'"
        )


@runtime_checkable  # for the typed test run
class Read(Protocol):
    """Reads one tensor. `keep=True` says that it will stay as it is, so it may be a view of the mapped file."""

    def __call__(self, keep: bool = False) -> Tensor: ...


@runtime_checkable
class ReadPart(Protocol):
    """Reads the rows (axis 0) or columns (axis 1) in a range, a copy."""

    def __call__(self, axis: int, wanted: range) -> Tensor: ...


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint, not yet read; a dtype that torch has no name for is a string.

    `read_part` is there where the file can give a part of the tensor without the rest.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | str
    read: Read
    read_part: ReadPart | None = None

    def part(self, axis: int, wanted: range) -> "Stored":
        """Some rows (axis 0) or columns (axis 1) as a tensor of their own, not yet read."""

        def read(keep: bool = False) -> Tensor:
            if self.read_part is not None:
                return self.read_part(axis, wanted)
            return self.read().narrow(axis, wanted.start, len(wanted)).clone()

        shape = (*self.shape[:axis], len(wanted), *self.shape[axis + 1 :])
        return Stored(shape, self.dtype, read)


@dataclass(frozen=True)
class Checkpoint:
    """What every format is opened as.

    `tensors` go by the names of our state dict, rows in our order. `stored_name` turns such a name into the one in
    the files, for messages. `unknown` are names in the files that cannot be turned into one of ours.
    """

    path: Path
    config: LlamaConfig
    tensors: dict[str, Stored]
    stored_name: Callable[[str], str]
    unknown: tuple[str, ...] = ()


def read_stated(read: Callable[[], LlamaConfig]) -> LlamaConfig:
    """What `read` makes of a file; a wrong type in it is no wrong call, so it raises ValueError."""
    try:
        return read()
    except TypeError as error:
        raise ValueError(f"{error}: download the file again, or correct it") from None


@dataclass(frozen=True)
class Format:
    """How checkpoints of one format are found in a directory and opened; both functions raise ValueError."""

    config: str  # the file of the configuration
    weights: str  # a pattern for the files of weights
    read_config: Callable[[Path], LlamaConfig]
    open: Callable[[Path], Checkpoint]


class MappedFile:
    """The tensors of a file, read through memory maps: one for those that are kept, and one to copy from.

    What was read through a map counts as memory of this process for as long as the map is there. So the one to
    copy from is made anew after every twentieth of the file.
    """

    def __init__(self, path: Path, open_map: Callable[[Path], Callable[[str], Tensor]]) -> None:
        self.path, self.open_map = path, open_map
        self.kept = self.copied = None
        self.left = self.share = path.stat().st_size // 20

    def read(self, name: str, keep: bool = False) -> Tensor:
        """The tensor of that name; with `keep`, through the map that stays."""
        if keep:
            self.kept = self.kept or self.open_map(self.path)
            return self.kept(name)
        if self.left < 0:
            self.copied, self.left = None, self.share
        self.copied = self.copied or self.open_map(self.path)
        tensor = self.copied(name)
        self.left -= tensor.nbytes
        return tensor
