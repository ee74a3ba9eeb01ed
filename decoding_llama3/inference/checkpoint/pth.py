"""One `.pth` file of torch.save: a zip archive of a pickle, which names tensors, and of their raw values.

A pickle is a program. So before torch reads one, what it calls is compared with what makes plain tensors, and the
archive with the size of its file: a compressed one could grow a thousandfold in memory.
"""

import pickletools
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from decoding_llama3.inference.checkpoint.hub_cache import download_again
from decoding_llama3.inference.checkpoint.stored import MappedFile, Stored
from decoding_llama3.inference.checkpoint.untrusted import check_file
from decoding_llama3.json_files import shown

LARGEST_PICKLE = 4 * 2**20  # bytes; the one of the 405B has about 300,000
_PLAIN = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\.storage UntypedStorage"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
)
_OTHER = {  # what else torch rebuilds: what kind of tensor that is
    "torch._utils _rebuild_qtensor": "quantised",
    "torch._utils _rebuild_sparse_tensor": "sparse",
    "torch._utils _rebuild_nested_tensor": "nested",
    "torch._utils _rebuild_meta_tensor_no_storage": "empty",
    "torch._utils _rebuild_tensor_v3": "quantised",
}
_CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
_ELSEWHERE = "get the checkpoint from its original source, or use the safetensors version"
_NOT_ONLY_TENSORS = f"holds more than tensors and is refused: it may run code; {_ELSEWHERE}"


def open_pth(path: Path) -> dict[str, Stored]:
    """The tensors of a file, by the names that stand in it.

    Raises ValueError for a file that is damaged, that holds anything but a dictionary of plain tensors, or that
    would take more memory than it is large; and under a torch older than 2.10.
    """
    if TorchVersion(str(torch.__version__)) < "2.10":
        raise ValueError(
            f"{path} is a pickle, and a crafted one can run code in torch {torch.__version__} even where tensors "
            "alone are read (CVE-2026-24747): install torch 2.10 or newer, or use the safetensors version"
        )
    check_file(path)
    _check_pickle(path, _read_pickle(path))
    tensors = map_pth(path)
    _check_tensors(path, tensors)
    mapped = MappedFile(path, _tensors)
    return {
        name: Stored(tuple(tensor.shape), tensor.dtype, partial(mapped.read, name))
        for name, tensor in tensors.items()
    }


def map_pth(path: Path) -> dict[str, Tensor]:
    """What a checked file holds, mapped into memory. ValueError where it cannot be read."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises whatever its unpickler meets, and its advice is not ours
        raise ValueError(f"{path} is damaged, or {_NOT_ONLY_TENSORS}") from error


def _tensors(path: Path) -> Callable[[str], Tensor]:
    return map_pth(path).__getitem__


def _read_pickle(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            pickles = [entry for entry in entries if entry.filename.lower().endswith("/data.pkl")]
            raw = all(e.compress_type == zipfile.ZIP_STORED and e.file_size == e.compress_size for e in entries)
            fits = raw and sum(entry.file_size for entry in entries) <= path.stat().st_size
            if fits and len(pickles) == 1 and pickles[0].file_size <= LARGEST_PICKLE:
                return archive.read(pickles[0])
    except Exception as error:  # zipfile raises whatever a damaged archive makes it
        raise ValueError(
            f"{path} is damaged, or no zip archive as torch.save writes it ({shown(str(error), 120)}): "
            f"{download_again(path)}, or {_ELSEWHERE}"
        ) from error
    raise ValueError(
        f"{path} is refused: it is compressed, or not the one pickle of at most {LARGEST_PICKLE:,} bytes, with "
        f"raw values beside it, that torch.save writes, and could fill the memory; {_ELSEWHERE}"
    )


def _check_pickle(path: Path, pickled: bytes) -> None:
    try:
        called = [str(value or code.name) for code, value, _ in pickletools.genops(pickled) if code.name in _CALLS]
    except Exception as error:  # whatever a damaged pickle makes it raise
        raise ValueError(f"{path} is damaged: {_ELSEWHERE}") from error
    for name in called:
        if name in _OTHER:
            raise ValueError(
                f"{path} holds {_OTHER[name]} tensors, but plain ones in bfloat16, float16 or float32 are "
                "expected: get the checkpoint from its original source"
            )
        if not _PLAIN.fullmatch(name):
            raise ValueError(f"{path} {_NOT_ONLY_TENSORS} (it calls {shown(name)})")


def _check_tensors(path: Path, tensors: object) -> None:
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(
            f"{path} should hold a dictionary of tensors by name: is it a Llama checkpoint of Meta's?"
        )
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise ValueError(
                f"{path} names a tensor by a value of type {type(name).__name__}, but names are expected: is it a "
                "Llama checkpoint of Meta's?"
            )
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{path} has {shown(name)} of {tensor.nbytes:,} bytes in {tensor.untyped_storage().nbytes():,}, "
                "which repeat: get the checkpoint from its original source"
            )
