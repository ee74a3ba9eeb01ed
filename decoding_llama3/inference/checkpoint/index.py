"""The index of a checkpoint in several files: which of them holds which tensor."""

from pathlib import Path

from decoding_llama3.inference.checkpoint.untrusted import check_file
from decoding_llama3.json_files import read_json, shown

LARGEST = 64 * 2**20  # bytes; the index of the 405B has about 100,000


def read_index(path: Path) -> dict[str, str]:
    """The shard of each tensor, by the names that stand in the files.

    A shard lies in the folder of the index, or below it. ValueError for an index that says anything else, or that
    says it twice.
    """
    check_file(path)
    weight_map = read_json(path, path.name, LARGEST, once=True)[0].get("weight_map")
    named = isinstance(weight_map, dict) and all(isinstance(shard, str) for shard in weight_map.values())
    if not weight_map or not named:
        raise ValueError(
            f"{path} is no index of shards: its weight_map is {shown(weight_map)}, expected tensors, each with "
            "the file that it is in; download it again"
        )
    for shard in dict.fromkeys(weight_map.values()):
        if not _lies_below(shard):
            raise ValueError(
                f"{path} names the shard {shown(shard)}, but a shard lies in its index's folder and is named "
                "from there: download the checkpoint from its original source"
            )
    return weight_map


def _lies_below(name: str) -> bool:
    """Whether a file name joined to a folder stays in it, on Windows too. A link that lies there may lead out."""
    parts = name.replace("\\", "/").split("/")
    fits = len(name) <= 255 and name.isprintable() and ":" not in name
    return fits and not any(part in ("", ".", "..") for part in parts)
