"""The index of a checkpoint in several files: which of them holds which tensor."""

import json
from pathlib import Path

from decoding_llama3.inference.checkpoint.untrusted import check_file, quoted

LARGEST = 64 * 2**20  # bytes; the index of the 405B has about 100,000


def read_index(path: Path) -> dict[str, str]:
    """The shard of each tensor, by the names that stand in the files.

    A shard lies in the folder of the index, or below it. ValueError for an index that says anything else, or that
    says it twice.
    """
    check_file(path)
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, an index at most {LARGEST:,}: is it one?")
    weight_map: dict[str, str] = {}
    try:
        index = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_without_repeats)
        weight_map = index["weight_map"]
        whole = weight_map and all(isinstance(shard, str) for shard in weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        whole, reason = False, f": {quoted(error, 120)}"
    else:
        reason = ""
    if not whole:
        raise ValueError(
            f"{path} is no index of shards (UTF-8 JSON with a weight_map of tensor to file{reason}): "
            "download it again"
        )
    for shard in dict.fromkeys(weight_map.values()):
        if not _lies_below(shard):
            raise ValueError(
                f"{path} names the shard {quoted(shard)}, but a shard lies in its index's folder and is named "
                "from there: download the checkpoint from its original source"
            )
    return weight_map


def _lies_below(name: str) -> bool:
    """Whether a file name joined to a folder stays in it, on Windows too. A link that lies there may lead out."""
    parts = name.replace("\\", "/").split("/")
    fits = len(name) <= 255 and name.isprintable() and ":" not in name
    return fits and not any(part in ("", ".", "..") for part in parts)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands in it twice")
    return names
