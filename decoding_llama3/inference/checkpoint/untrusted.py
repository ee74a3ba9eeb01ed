"""What is asked of a file before it is opened."""

import os
import stat
from pathlib import Path

from decoding_llama3.inference.checkpoint.hub_cache import download_again

_PAGE = "is a web page in place of the file: download it with `hf download`, after `hf auth login` if need be"
_STAND_INS = {  # by how they begin: what lies there in place of the file that was meant
    b"version https://git-lfs": "is a pointer of Git LFS in place of the file: run `git lfs pull` in its folder",
    b"<!doctype html": _PAGE,
    b"<html": _PAGE,
}


def check_file(path: Path) -> None:
    """Raise ValueError unless `path` is a regular file, or a link to one, that could hold what its name says.

    Pipes and devices are not opened: to read one is to wait, or to go on, for ever.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{path} is a folder, a pipe or a device, but a file was expected")
        with path.open("rb") as file:
            beginning = file.read(64)
    except FileNotFoundError as error:
        raise ValueError(
            f"{path.parent} lacks {path.name}: {download_again(path, 'the checkpoint')}, with all its files"
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): is it yours, and its disk there?") from error
    if not beginning:
        raise ValueError(f"{path} is empty: {download_again(path)}")
    for start, what in _STAND_INS.items():
        if beginning.lstrip().lower().startswith(start):
            raise ValueError(f"{path} {what}")
