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
    target = path.resolve()
    _try_to_write(option, path, target.with_name(f"{target.name}.new"))


def check_output_folder(option: str, path: Path) -> None:
    """Raise ValueError or OSError if `path`, the value of `option`, cannot become a folder to write in."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(path)
    existing = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not existing.is_dir():
        raise ValueError(f"{option} {path} cannot be a folder, because {existing} is none: give another name")
    _try_to_write(option, path, existing / ".decoding-llama3.new")


def write_result(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all; into a device or a pipe as it comes."""
    if _is_stream(path):
        path.write_text(text, encoding="utf-8")
        return
    from decoding_llama3.experiments.files import write_text

    write_text(path.resolve(), text)  # where `path` is a link, the file that it leads to


def _is_stream(path: Path) -> bool:
    """Whether `path` is such as /dev/stdout or a named pipe, which cannot be replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _try_to_write(option: str, path: Path, fresh: Path) -> None:
    try:
        fresh.open("ab").close()
        fresh.unlink()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ValueError(f"{option} {path} cannot be written ({reason}): give another place") from None
