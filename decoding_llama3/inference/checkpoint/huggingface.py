"""Hugging Face's format: config.json with safetensors, whole or in shards that an index lists."""

import os
from pathlib import Path

from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.hub_cache import download_again
from decoding_llama3.inference.checkpoint.index import read_index
from decoding_llama3.inference.checkpoint.names import DERIVED, HUGGINGFACE_NAMES, Names
from decoding_llama3.inference.checkpoint.rows import interleave_pairs
from decoding_llama3.inference.checkpoint.shard import open_shard
from decoding_llama3.inference.checkpoint.stored import Checkpoint, Format, Stored, read_stated
from decoding_llama3.json_files import shown

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
NAMES = Names(HUGGINGFACE_NAMES)
ADAPTER_ALONE = (
    "holds the adapter of a model alone: merge it into its base model (merge_and_unload of the package peft, then "
    "save_pretrained), and pass the folder of the merged one"
)
_NO_SAFETENSORS = {  # what lies there in place of model.safetensors: what to do
    "adapter_*": ADAPTER_ALONE,
    "model-*-of-*.safetensors": f"holds shards, but not the {INDEX} that says which holds what: download it, too",
    "pytorch_model*.bin": "holds pytorch_model.bin alone, a pickle, which is not read here: download the model's "
    "safetensors, or make them with transformers: AutoModelForCausalLM.from_pretrained(old).save_pretrained(new)",
    "consolidated.*.pth": "holds Meta's weights, but not the params.json that goes with them: download it, too",
}


def _read_config(directory: Path) -> LlamaConfig:
    return read_stated(lambda: LlamaConfig.from_huggingface(directory / CONFIG))


def _open(directory: Path) -> Checkpoint:
    config = _read_config(directory)
    tensors, unknown = {}, []
    for theirs, stored in _open_weights(directory).items():
        ours = NAMES.ours(theirs)
        if ours is None:
            unknown.append(theirs)
        elif ours.endswith((".wq.weight", ".wk.weight")):
            tensors[ours] = _interleaved(stored, config.head_dim)
        else:
            tensors[ours] = stored
    return Checkpoint(directory, config, tensors, NAMES.theirs, tuple(unknown))


def _interleaved(stored: Stored, head_dim: int) -> Stored:
    """Copies, kept or not. The rows of a part are those of whole heads."""

    def read(keep: bool = False) -> Tensor:
        return interleave_pairs(stored.read(), head_dim)

    def read_part(axis: int, wanted: range) -> Tensor:
        return interleave_pairs(stored.part(axis, wanted).read(), head_dim)

    return Stored(stored.shape, stored.dtype, read, read_part)


def _open_weights(directory: Path) -> dict[str, Stored]:
    """Tensors by their names in the files."""
    whole = os.path.lexists(directory / WEIGHTS)
    if not os.path.lexists(directory / INDEX):
        if not whole:
            raise ValueError(f"{directory} {_why_no_weights(directory)}")
        return open_shard(directory / WEIGHTS)
    shard_of = read_index(directory / INDEX)
    if whole and WEIGHTS not in shard_of.values():
        raise ValueError(
            f"{directory} holds {WEIGHTS} and an {INDEX} that does not list it: they may be two models, so move "
            "one of the two away"
        )
    return _open_shards(directory, shard_of)


def _open_shards(directory: Path, shard_of: dict[str, str]) -> dict[str, Stored]:
    """Each tensor from the shard that the index gives for it, and from no other."""
    stored = {}
    for shard in sorted(set(shard_of.values())):
        for name, tensor in open_shard(directory / shard).items():
            if shard_of.get(name) == shard:
                stored[name] = tensor
            elif not DERIVED.fullmatch(name):
                listed = f"lists it in {shown(shard_of[name])}" if name in shard_of else "does not list it"
                raise ValueError(
                    f"{directory / shard} holds {shown(name)}, but {INDEX} {listed}: download the checkpoint "
                    "again, index and shards together"
                )
    if missing := [name for name in shard_of if name not in stored]:
        raise ValueError(
            f"{directory / INDEX} lists {shown(missing[0])} in {shown(shard_of[missing[0]])}, which lacks "
            "it: download the checkpoint again, index and shards together"
        )
    return stored


def _why_no_weights(directory: Path) -> str:
    for pattern, why in _NO_SAFETENSORS.items():
        if any(directory.glob(pattern)):
            return why
    return f"lacks {WEIGHTS}: {download_again(directory, 'the checkpoint')}, with all its files"


HUGGINGFACE = Format(CONFIG, "*.safetensors", _read_config, _open)
