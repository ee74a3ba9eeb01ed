"""Meta's format: params.json with consolidated.00.pth, .01, ...: the parts that each of several GPUs held."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.names import META_NAMES, Names
from decoding_llama3.inference.checkpoint.pth import open_pth
from decoding_llama3.inference.checkpoint.stored import Checkpoint, Format, Stored, read_stated
from decoding_llama3.inference.empty import in_first_layer, tensor_shapes
from decoding_llama3.json_files import shown

CONFIG = "params.json"
PARTS = "consolidated.*.pth"
NAMES = Names(META_NAMES)


def _read_config(directory: Path) -> LlamaConfig:
    """Llama 2's params.json leave the size of the vocabulary to the weights."""
    rows = _rows([open_pth(path) for path in _paths(directory)]) if any(directory.glob(PARTS)) else None
    return read_stated(lambda: LlamaConfig.from_params_json(directory / CONFIG, vocab_size=rows))


def _open(directory: Path) -> Checkpoint:
    """Parts that belong together are joined as they are read."""
    parts = [open_pth(path) for path in _paths(directory)]
    if unshared := set().union(*parts) - set(parts[0]).intersection(*parts):
        raise ValueError(
            f"{directory}: not all parts hold {shown(min(unshared))}: are they parts of one checkpoint?"
        )
    config = read_stated(lambda: LlamaConfig.from_params_json(directory / CONFIG, vocab_size=_rows(parts)))
    shapes = tensor_shapes(config)
    tensors, unknown = {}, []
    for theirs in parts[0]:
        ours = NAMES.ours(theirs)
        if ours is None:
            unknown.append(theirs)
        else:
            whole = shapes.get(in_first_layer(ours))
            tensors[ours] = _join(f"{shown(theirs)} in {directory}", [part[theirs] for part in parts], whole)
    return Checkpoint(directory, config, tensors, NAMES.theirs, tuple(unknown))


def _paths(directory: Path) -> list[Path]:
    paths = sorted(directory.glob(PARTS))
    if [path.name for path in paths] != [f"consolidated.{i:02d}.pth" for i in range(len(paths))] or not paths:
        found = ", ".join(shown(path.name) for path in paths[:20]) or "none"
        raise ValueError(f"{directory} should hold consolidated.00.pth, .01, ... without a gap, found {found}")
    return paths


def _rows(parts: list[dict[str, Stored]]) -> int | None:
    """The size of the vocabulary, which Llama 2's params.json do not give, from the output matrix."""
    shapes = [part["output.weight"].shape for part in parts if "output.weight" in part]
    return sum(shape[0] if shape else 0 for shape in shapes) or None


def _join(what: str, parts: list[Stored], whole: tuple[int, ...] | None) -> Stored:
    """Model-parallel parts of one tensor: all the same, or cut along the axis that falls short of the whole."""
    first = parts[0]
    if len(parts) == 1 or whole is None:
        return first
    if found := next((p for p in parts if (p.shape, p.dtype) != (first.shape, first.dtype)), None):
        raise ValueError(
            f"the parts of {what} differ in shape or dtype ({first.shape} in {first.dtype}, {found.shape} in "
            f"{found.dtype}): are they parts of one checkpoint?"
        )
    if first.shape == whole:
        return Stored(whole, first.dtype, partial(_only, what, parts))
    for axis, n in enumerate(first.shape):
        if (*first.shape[:axis], n * len(parts), *first.shape[axis + 1 :]) == whole:
            return Stored(whole, first.dtype, partial(_cat, what, parts, axis))
    raise ValueError(
        f"the {len(parts)} parts of {what} have the shape {first.shape} and cannot be joined to the {whole} of "
        "the configuration: are all parts there?"
    )


def _only(what: str, parts: list[Stored], keep: bool = False) -> Tensor:
    """A tensor that every part holds whole."""
    tensor = parts[0].read(keep)
    for i, part in enumerate(parts[1:], start=1):
        if not torch.equal(part.read().view(torch.uint8), tensor.view(torch.uint8)):  # NaN equals NaN here
            raise ValueError(
                f"{what} differs between consolidated.00.pth and consolidated.{i:02d}.pth, which should both hold "
                "the same: are they parts of one checkpoint?"
            )
    return tensor


def _cat(what: str, parts: list[Stored], axis: int, keep: bool = False) -> Tensor:
    pieces = [part.read() for part in parts]
    for i, piece in enumerate(pieces[1:], start=1):
        same_start = torch.equal(piece[:1], pieces[0][:1])  # most often no more than this need be read
        if same_start and torch.equal(piece, pieces[0]) and bool((piece != piece.flatten()[0]).any()):
            raise ValueError(
                f"{what} has the same weights in consolidated.00.pth and consolidated.{i:02d}.pth, which should "
                "be two parts of it: download the checkpoint again"
            )
    return torch.cat(pieces, dim=axis)  # a copy, kept or not


META = Format(CONFIG, PARTS, _read_config, _open)
