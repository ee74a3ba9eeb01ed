"""Part 2 - one JSON object from a text or a file that nobody has checked yet.

Every fault raises ValueError in one sentence that names the file. What comes from the file
stands in it quoted and cut short, so that no escape code reaches a terminal.
"""

import json
import math
import reprlib
from functools import partial
from os import PathLike
from pathlib import Path

LARGEST_FILE = 16 * 2**20  # bytes; the configuration of a Llama has one or two thousand
LONGEST_INTEGER = 100  # digits
_BLANKS = "\ufeff \t\r\n"  # the first is the byte order mark that Windows puts before a text


def read_json(
    text_or_path: str | PathLike, filename: str, largest: int = LARGEST_FILE, once: bool = False
) -> tuple[dict, str]:
    """The object in a JSON text, in a file, or in the file called `filename` of a directory.

    The file has at most `largest` bytes. No key has two values; with `once`, none stands twice.

    The second result is the source as messages name it. What is neither text nor path
    raises TypeError. What cannot be read, or is no JSON object, raises ValueError.
    """
    if not isinstance(text_or_path, (str, PathLike)):
        found = type(text_or_path).__name__
        raise TypeError(f"a {filename} is given as text or path, found {found}")
    if isinstance(text_or_path, str) and text_or_path.lstrip(_BLANKS).startswith("{"):
        text, source = text_or_path.lstrip(_BLANKS), f"the {filename} given as text"
    else:
        text, source = _read_text(Path(text_or_path), filename, largest)
    hook = partial(_object, source, once)
    try:
        values = json.loads(text, object_pairs_hook=hook, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not valid JSON ({error}): download it again") from error
    except RecursionError:
        raise ValueError(f"{source} is nested too deeply: is it a {filename}?") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise ValueError(f"{source} holds a JSON {kind}, expected an object")
    return values, source


def shown(value: object, limit: int = 80) -> str:
    """A value as Python writes it, or true, false, null, in `limit` printable characters.

    So no escape code from a file reaches a terminal by a message.
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, limit, limit
    text = short.repr(value)
    text = text if text.isprintable() else repr(text)  # an array of numpy has line breaks
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def equal(a: object, b: object) -> bool:
    """As JSON has it: 1 and 1.0 are one number, but true is no number."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _read_text(path: Path, filename: str, largest: int) -> tuple[str, str]:
    source = _name(path)
    try:
        if path.is_dir():
            path, source = path / filename, _name(path / filename)
        if not path.is_file():  # a pipe or a device might never end
            found = f"{source} is no regular file" if path.exists() else f"no file {source}"
            raise ValueError(f"{found}: pass the path of a {filename}, or its text")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error.strerror}") from error
    if len(content) > largest:
        raise ValueError(f"{source} has over {largest:,} bytes: is it a {filename}?")
    try:
        return content.decode("utf-8-sig"), source
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise ValueError(
            f"{source} is not UTF-8 text (byte {byte:#04x} at {error.start:,}): save it as "
            "UTF-8, or download it again"
        ) from error


def _name(path: Path) -> str:
    name = str(path) if str(path).isprintable() else repr(str(path))
    return name if len(name) <= 120 else f"...{name[-117:]}"


def _object(source: str, once: bool, pairs: list[tuple[str, object]]) -> dict:
    """An object of the file, each key once and each number finite."""
    values = {}
    for key, value in pairs:
        if key in values and (once or not equal(values[key], value)):
            first = shown(values[key])
            raise ValueError(
                f"{source} sets {shown(key)} twice, to {first} and to {shown(value)}: which of "
                "the two is right, only its author knows"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(
                f"{source} sets {shown(key)} to {value}, or to a number too large to be read: "
                f"expected a finite number, or an integer of at most {LONGEST_INTEGER} digits"
            )
        values[key] = value
    return values


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else math.inf  # refused with its key
