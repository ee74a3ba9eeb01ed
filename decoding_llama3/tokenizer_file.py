"""Part 1 - the vocabulary: Meta's `tokenizer.model`, and the special tokens that come after it.

The file has a line for each token, `base64 rank`. It does not list the special tokens.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

N_SPECIAL = 256
_NAMED_SPECIAL = {
    0: "begin_of_text",
    1: "end_of_text",
    4: "finetune_right_pad_id",
    5: "step_id",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
    10: "python_tag",
    11: "image",
}
MAX_BYTES = 64 * 2**20  # Llama 3's file has 2 MiB
_BASE64 = rb"(?=\S)(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}[A-Za-z0-9+/=]=)?"
_LINE = re.compile(rb"(%b) (\d{1,9})" % _BASE64)
_GIT_LFS = re.compile(rb"version https://git-lfs\.")
_SENTENCEPIECE = re.compile(rb"\n.\n.<\w+>", re.DOTALL)  # its first token, such as <unk>


def special_names() -> list[str]:
    """The names of the special tokens, in the order of their ids."""
    reserved = iter(range(N_SPECIAL))
    names = (_NAMED_SPECIAL.get(i) for i in range(N_SPECIAL))
    return [f"<|{name or f'reserved_special_token_{next(reserved)}'}|>" for name in names]


def read_ranks(path: Path) -> dict[bytes, int]:
    """The ordinary tokens of a `tokenizer.model`, each with its rank, which is also its id.

    Raises ValueError if the file is missing, of another kind or damaged: ranks must be 0, 1, 2,
    ... once each, tokens distinct, all 256 single bytes among them and no special name.
    """
    pairs = list(_parse(path, _read(path)))
    ranks = dict(pairs)
    if len(ranks) < len(pairs):
        fault = f"it has {len(pairs)} lines, but only {len(ranks)} different tokens"
    elif sorted(ranks.values()) != list(range(len(ranks))):
        fault = f"its {len(ranks)} tokens have not the ranks 0 to {len(ranks) - 1}, once each"
    elif lacking := [bytes([b]) for b in range(256) if bytes([b]) not in ranks]:
        fault = f"{len(lacking)} of the 256 single bytes are no tokens, first {lacking[0]!r}"
    elif found := [name for name in special_names() if name.encode() in ranks]:
        fault = f"the special token {found[0]} is among its ordinary ones"
    else:
        return ranks
    raise ValueError(f"{path} is damaged: {fault}; download it again")


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe is never opened: that could wait for ever
            found = "not a regular file" if path.exists() else "not found"
            raise ValueError(f"no tokenizer file {path} ({found}): pass that of a Llama 3")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(
                f"{path} has {size:,} bytes, but a tokenizer.model of Llama 3 has 2 million: "
                "pass the path of that file"
            )
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _parse(path: Path, content: bytes) -> Iterator[tuple[bytes, int]]:
    if not content:
        raise ValueError(f"{path} is empty: download it again")
    if _GIT_LFS.match(content):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file that it points to: run 'git lfs pull' "
            "in its folder, or download the file itself"
        )
    if _SENTENCEPIECE.match(content):
        raise ValueError(
            f"{path} is a SentencePiece file, as of Llama 2 and Mistral, and these are not "
            "supported: use the tokenizer.model of a Llama 3"
        )
    for number, line in enumerate(content.splitlines(), start=1):
        if parts := _LINE.fullmatch(line):
            yield base64.b64decode(parts[1]), int(parts[2])
        elif line:
            raise ValueError(
                f"{path} is damaged or not a Llama 3 tokenizer.model: line {number} should be "
                f"'base64 rank', found {line[:40]!r}; download it again"
            )
