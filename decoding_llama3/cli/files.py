"""Where a command will write is checked before it works for minutes, and then written at once or not at all."""

import os
from contextlib import suppress
from pathlib import Path


def check_output_file(option: str, path: Path) -> None:
    """Raise ValueError or OSError if `path`, the value of `option`, cannot become a file."""
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: give the name of a file")
    if _is_stream(path):
        return
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path} lies in no folder there is: make {path.parent} first")
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{option} {path} is write-protected: give another name, or change its permissions")
    _try_to_write(option, path, _partial(path))


def check_output_folder(option: str, path: Path) -> None:
    """Raise ValueError or OSError if `path`, the value of `option`, cannot become a folder to write in."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(path)
    existing = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not existing.is_dir():
        raise ValueError(f"{option} {path} cannot be a folder, because {existing} is none: give another name")
    _try_to_write(option, path, existing / ".decoding-llama3.partial")


def write_whole(path: Path, text: str) -> None:
    """Write a text file as UTF-8: a stop in the middle leaves what was there before."""
    if _is_stream(path):
        path.write_text(text, encoding="utf-8")
        return
    partial = _partial(path)
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path.resolve())  # where `path` is a link, the file that it leads to
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _partial(path: Path) -> Path:
    target = path.resolve()
    return target.with_name(f"{target.name}.partial")


def _is_stream(path: Path) -> bool:
    """Whether `path` is such as /dev/stdout or a named pipe, which cannot be replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _try_to_write(option: str, path: Path, partial: Path) -> None:
    try:
        partial.open("ab").close()
        partial.unlink()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ValueError(f"{option} {path} cannot be written ({reason}): give another place") from None
