"""A reader's own copy of the notebooks: `python -m decoding_llama3.lessons.working_copy notebooks lab`.

An update of the project refreshes what the reader has not touched, and never what he has: there the new version
is laid beside his as NAME.new.ipynb.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path


def update_working_copy(source: Path, target: Path) -> Iterator[str]:
    """Copy the notebooks of `source` to `target`; yield a line about each that was copied or laid beside."""
    target.mkdir(parents=True, exist_ok=True)
    record = target / ".copied.json"  # name: digest of the version last copied
    copied = json.loads(record.read_text()) if record.exists() else {}
    for notebook in sorted(source.glob("*.ipynb")):
        mine, digest = target / notebook.name, _digest(notebook)
        if copied.get(notebook.name) == digest and mine.exists():
            continue
        if not mine.exists() or _digest(mine) == copied.get(notebook.name):
            shutil.copyfile(notebook, mine)
            yield f"{mine}: copied"
        else:
            fresh = mine.with_suffix(".new.ipynb")
            shutil.copyfile(notebook, fresh)
            yield f"{mine}: you changed it, so it stays; the new version is {fresh.name}"
        copied[notebook.name] = digest
        record.write_text(json.dumps(copied, indent=1))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    for line in update_working_copy(Path(sys.argv[1]), Path(sys.argv[2])):
        print(line)
