"""The header of a GGUF file: the settings that are used here, and where each tensor lies.

Format: docs/gguf.md in github.com/ggml-org/ggml, versions 2 and 3. Every count, length, type and offset is held
against the size of the file before anything is made of it.
"""

import struct
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from decoding_llama3.inference.checkpoint.gguf_types import NOT_READ, WEIGHT_TYPES, WeightType
from decoding_llama3.inference.checkpoint.hub_cache import download_again
from decoding_llama3.inference.checkpoint.untrusted import check_file
from decoding_llama3.json_files import shown

LARGEST_HEADER, LONGEST_LIST = 64 * 2**20, 2**20  # bytes and texts; Llama 3's have 8 million and 280,147
_USED = ("general.architecture", "general.alignment", "split.count", "llama.", "tokenizer.")
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_TEXT, _LIST = 8, 9


class Place(NamedTuple):
    """A tensor in the file: its axes, the slowest first, and its bytes from the beginning of the file on."""

    shape: tuple[int, ...]
    type: WeightType
    start: int
    n_bytes: int


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, Place]]:
    """Settings and places of tensors by name. A file that is damaged or of another kind raises ValueError."""
    check_file(path)
    with path.open("rb") as file:
        return _Reader(path, file.read(LARGEST_HEADER)).header()


class _Reader:
    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content, self.at, self.size = path, content, len(b"GGUF"), path.stat().st_size

    def header(self) -> tuple[dict[str, Any], dict[str, Place]]:
        if self.content[:4] != b"GGUF":
            raise ValueError(f"{self.path} is no GGUF file: it begins with {self.content[:4]!r}, expected b'GGUF'")
        if (version := self.number("I")) not in (2, 3):
            raise ValueError(f"{self.path} is of GGUF version {version}, expected 2 or 3, little-endian")
        n_tensors, n_settings = self.count("tensors", 32), self.count("settings", 13)
        self.check(max(n_tensors, n_settings) < 2**16, f"it has {n_tensors:,} tensors and {n_settings:,} settings")
        settings, names = {}, set()
        for _ in range(n_settings):
            name = self.text("the name of a setting")
            self.check(name not in names, f"it sets {shown(name)} twice")
            names.add(name)
            value = self.value(f"the value of {shown(name)}", used=name.startswith(_USED))
            settings |= {name: value} if name.startswith(_USED) else {}
        tensors = dict(self.tensor() for _ in range(n_tensors))
        self.check(len(tensors) == n_tensors, f"of {n_tensors} tensors some have the same name")
        return settings, self.places(tensors, settings.get("general.alignment", 32))

    def value(self, what: str, used: bool) -> Any:
        kind, n = self.number("I"), 1
        if is_list := kind == _LIST:
            kind = self.number("I")
            n = self.count(f"elements of {what}", 8 if kind == _TEXT else struct.calcsize(_NUMBERS.get(kind, "B")))
        self.check(kind in _NUMBERS or kind == _TEXT, f"{what} is of the type {kind}, which is not known")
        if kind != _TEXT:
            numbers = np.frombuffer(self.take(n * struct.calcsize(_NUMBERS[kind]), what), _NUMBERS[kind])
            return numbers if is_list else numbers[0].item()
        self.check(n <= LONGEST_LIST, f"{what} lists {n:,} texts, expected at most {LONGEST_LIST:,}")
        texts = [self.text(what) if used else self.take(self.number("Q"), what) for _ in range(n)]
        return texts if is_list else texts[0]

    def tensor(self) -> tuple[str, tuple[tuple[int, ...], WeightType, int]]:
        name, n_axes = self.text("the name of a tensor"), self.number("I")
        self.check(1 <= n_axes <= 4, f"{shown(name)} has {n_axes} axes, expected 1 to 4")
        *axes, kind, offset = (self.number(size) for size in "Q" * n_axes + "IQ")
        shape = tuple(axes[::-1])
        if kind not in WEIGHT_TYPES:
            found, known = NOT_READ.get(kind, kind), ", ".join(each.name for each in WEIGHT_TYPES.values())
            raise ValueError(f"{self.path} holds {shown(name)} in the type {found}; read here are {known}")
        whole = 0 not in shape and shape[-1] % WEIGHT_TYPES[kind].n_weights == 0
        self.check(whole, f"{shown(name)} of shape {shape} has no whole blocks of {WEIGHT_TYPES[kind].name}")
        return name, (shape, WEIGHT_TYPES[kind], offset)

    def places(self, tensors: dict[str, tuple], alignment: int) -> dict[str, Place]:
        good = isinstance(alignment, int) and alignment in (8, 16, 32, 64, 128, 256, 512, 4096)
        self.check(good, f"its alignment is {shown(alignment)}, expected 32 or another power of two")
        base, end, places = -(-self.at // alignment) * alignment, 0, {}
        for name, (shape, kind, offset) in sorted(tensors.items(), key=lambda item: item[1][-1]):
            place = Place(shape, kind, base + offset, prod(shape) // kind.n_weights * kind.n_bytes)
            inside = offset >= end and offset % alignment == 0 and place.start + place.n_bytes <= self.size
            self.check(inside, f"{shown(name)} has no {place.n_bytes:,} bytes of its own from {place.start:,} on")
            places[name], end = place, offset + place.n_bytes
        return places

    def take(self, n: int, what: str) -> bytes:
        if n > len(self.content) - self.at:
            self.check(False, f"{what} ends after the file, or after {LARGEST_HEADER:,} bytes")
        self.at += n
        return self.content[self.at - n : self.at]

    def number(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind), "a number"))[0]

    def count(self, what: str, least: int) -> int:
        if (n := self.number("Q")) * least > self.size - self.at:
            self.check(False, f"it announces {n:,} {what}, for which it is too short")
        return n

    def text(self, what: str) -> str:
        content = self.take(self.number("Q"), what)
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{self.path} is damaged: {what} is not UTF-8; {download_again(self.path)}") from None

    def check(self, good: bool, fault: str) -> None:
        if not good:
            raise ValueError(f"{self.path} is damaged: {fault}; {download_again(self.path)}")
