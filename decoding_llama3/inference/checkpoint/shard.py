"""One safetensors file: its header is read at once, its tensors one at a time."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from decoding_llama3.inference.checkpoint.hub_cache import download_again
from decoding_llama3.inference.checkpoint.stored import MappedFile, Stored
from decoding_llama3.inference.checkpoint.untrusted import check_file
from decoding_llama3.json_files import shown

LARGEST_HEADER = 16 * 2**20  # bytes; one of all tensors of the 405B has about 150,000
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


def open_shard(path: Path) -> dict[str, Stored]:
    """The tensors of a file, by the names that stand in it. ValueError where the file or its header is damaged."""
    check_file(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise _damaged(path, f"its header would have {length:,} bytes")
    mapped, stored = MappedFile(path, _tensors), {}
    with map_shard(path) as header:
        for name in header.keys():  # noqa: SIM118 (no dict)
            part = header.get_slice(name)
            dtype = _DTYPES.get(part.get_dtype()) or str(part.get_dtype())
            read_part = partial(_read_part, path, name)
            stored[name] = Stored(tuple(part.get_shape()), dtype, partial(mapped.read, name), read_part)
    return stored


def map_shard(path: Path) -> safe_open:
    """The file, mapped into memory. ValueError where it is damaged."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, shown(str(error), 120)) from error


def _tensors(path: Path) -> Callable[[str], Tensor]:
    return map_shard(path).get_tensor


def _read_part(path: Path, name: str, axis: int, wanted: range) -> Tensor:
    with map_shard(path) as file:
        parts = (*[slice(None)] * axis, slice(wanted.start, wanted.stop))
        return file.get_slice(name)[parts].clone()  # of its own, so that the map can be closed


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is damaged or no safetensors file ({reason}): {download_again(path)}")
