"""Tables and results as files: written at once or not at all, read back as what they were."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError


def make_folder(path: Path) -> None:
    """Make `path` and the folders above it, where they do not exist; raises ValueError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if path.is_file() else error.strerror or error
        raise ValueError(f"the folder {path} cannot be made ({reason}): give another --out") from error


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """While the context is open, another for `folder` raises ValueError, in any process. A kill ends the lock."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another {what} is under way in {folder}: wait for it, or give another --out") from None
    except (OSError, NotImplementedError) as error:
        raise ValueError(f"{folder} cannot be written into ({error}): give another --out") from error
    try:
        yield
    finally:
        lock.release()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it there: a reader sees the whole new one or the whole old.

    A disk that is full, or a folder that may not be written into, raises ValueError, and the old file stays. The
    file gets the permissions that a new file of this user has.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)  # left by a kill
        fresh.touch()
        mode = fresh.stat().st_mode
        write(fresh)
        fresh.chmod(mode)  # safetensors puts a file in its place that only the owner may read
        os.replace(fresh, path)
    except BaseException as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be written ({reason}): nothing was changed") from error


def write_text(path: Path, text: str) -> None:
    """As UTF-8, with line ends as they are; see `write_whole`."""
    write_whole(path, lambda fresh: fresh.write_bytes(text.encode()))


def write_json(path: Path, values: object) -> None:
    """Indented, with a line end; see `write_whole`."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """A column per key of the first row; see `write_whole`."""

    def write(fresh: Path) -> None:
        with fresh.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, write)


def read_text(path: Path) -> str:
    """The text of a file; raises ValueError where there is none, or where it is not UTF-8."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give the path of a text file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file; raises ValueError unless it has all of `columns` in every row."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file (line {reader.line_num}: {error})") from None
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)}: its first line names {', '.join(columns)}"
        )
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"line {number} of {path} has another number of fields than the first line")
    return rows
