"""Texts cut and screened for training: front and end matter, notes, and paragraphs with listed words left out."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from decoding_llama3.experiments.files import read_csv, read_text, write_text

_NOTE = re.compile(r"\[.*\]|\(.*\)|Note: .*")
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:")


def prepare(folder: Path, out: Path, ranges: Path, words: Path) -> Iterator[tuple[str, int, int, int]]:
    """Cut and screen the files that `ranges` lists; yield the file, its lines kept, notes and listed ones removed.

    `ranges` is a CSV with columns file, first, last: the lines to keep, counted from 1, ends included. Of those
    go the notes (in brackets as a whole, or after "Note:"), and the lines with an entry of `words`, a file of one
    word or phrase per line (whole words, in capitals or not).

    Everything is checked before the first file is written: ValueError for a name that leaves the folder, a range
    beyond the file, a file listed twice or not UTF-8, and an `out` that would overwrite a source.
    """
    listed, sources = listed_words(words), {path.resolve() for path in (ranges, words)}
    cuts = [_read_cut(folder, ranges, row) for row in read_csv(ranges, ("file", "first", "last"))]
    names = [name for name, _ in cuts]
    if not cuts:
        raise ValueError(f"{ranges} lists no files: give a line file,first,last for each")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{ranges} lists {twice[0]!r} twice: give one line for each file")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder")
    for name in names:
        target = (out / name).resolve()
        if target in sources or target == (folder / name).resolve():
            raise ValueError(
                f"--out {out} would overwrite {name!r}, which is read from there: give another folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    return _write(cuts, out, listed)


def listed_words(path: Path) -> re.Pattern:
    """Matches the entries of a file with one word or phrase per line: whole words, in capitals or not.

    Raises ValueError for a file that is not there, not UTF-8 or empty.
    """
    entries = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not entries:
        raise ValueError(f"{path} lists no words: give a file with one word or phrase per line")
    patterns = (r"\s+".join(map(re.escape, entry.split())) for entry in entries)
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)


def _read_cut(folder: Path, ranges: Path, row: dict[str, str]) -> tuple[str, list[str]]:
    """The name of a file and the lines of it that are to be kept."""
    name, numbers = row["file"], (row["first"], row["last"])
    separators = {"/", "\\", os.sep, "\0"}
    if not name or name in (".", "..") or separators & set(name) or _WINDOWS_DRIVE.match(name):
        raise ValueError(
            f"{ranges} lists {name!r:.80}, which is no name of a file in {folder}: give the name alone"
        )
    if not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in numbers):
        raise ValueError(
            f"{ranges} keeps lines {numbers[0]!r:.20} to {numbers[1]!r:.20} of {name!r}: give whole numbers"
        )
    if not (folder / name).is_file():
        raise ValueError(f"{folder} lacks {name!r}, which {ranges} lists: give the folder of all listed files")
    lines = read_text(folder / name).removesuffix("\n").split("\n")
    first, last = map(int, numbers)
    if not 1 <= first <= last <= len(lines):
        raise ValueError(
            f"{ranges} keeps lines {first} to {last} of {name!r}, which has {len(lines)}: give lines of this file"
        )
    return name, lines[first - 1 : last]


def _write(
    cuts: list[tuple[str, list[str]]], out: Path, listed: re.Pattern
) -> Iterator[tuple[str, int, int, int]]:
    for name, lines in cuts:
        tales = [line for line in lines if not _NOTE.fullmatch(line)]
        kept = [line for line in tales if not listed.search(line)]
        write_text(out / name, "\n".join(kept) + "\n")
        yield name, len(kept), len(lines) - len(tales), len(tales) - len(kept)
