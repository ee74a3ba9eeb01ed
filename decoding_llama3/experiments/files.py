"""Tables and results as files: written at once or not at all, read back as what they were."""

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it there: a reader sees the whole new one or the whole old.

    A disk that is full, or a folder that may not be written into, raises ValueError, and the old file stays.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        write(fresh)
        os.replace(fresh, path)
    except (OSError, SafetensorError) as error:
        fresh.unlink(missing_ok=True)
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
    reader = csv.DictReader(read_text(path).splitlines())
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
