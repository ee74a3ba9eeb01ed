"""Damaged tokenizer.model files by the thousand: each is read as Meta reads it, or refused in a sentence.

FUZZ=100000 sets the number of files.
"""

import base64
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from llama_models.llama3.tokenizer import Tokenizer as MetaTokenizer
from llama_models.tokenizer_utils import load_bpe_file

import decoding_llama3 as dl

WORDS = [b"th", b"he", b"the", b" the", b"in", b"ing", b" king", b"bi", b"rd", b"bird", b"\xe6\xbc\xa2", b"\n\n"]
VALID = b"".join(
    base64.b64encode(token) + b" %d\n" % rank
    for rank, token in enumerate([*(bytes([b]) for b in range(256)), *WORDS])
)
NUMBERS = [
    b"0",
    b"00",
    b"-1",
    b"+5",
    b"1_0",
    b"1e3",
    b"0x10",
    b"2.0",
    b"",
    b"5" * 5000,
    b"%d" % 2**64,
    "٥".encode(),
]
STARTS = [
    b"version https://git-lfs.github.com/spec/v1\n",
    b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02",
    b"\xef\xbb\xbf",
    b"{",
    b"\n",
    b"\0",
]
TEXT = "The king and the bird\n\n漢字 in 1234567 lines, the end! <|eot_id|>"
SECONDS = 1  # processor time for one file; it takes about a millisecond


def mutated_inputs(count: int) -> Iterator[tuple[int, bytes]]:
    """A seed and the file that it makes, `count` times: one to four random changes of a valid file."""
    for seed in range(count):
        draw, content = Random(seed), VALID
        for _ in range(draw.randint(1, 4)):
            content = draw.choice(CHANGES)(content, draw)
        yield seed, content


def span(content: bytes, draw: Random) -> tuple[int, int]:
    start = draw.randint(0, len(content))
    return start, min(len(content), start + draw.choice([1, 1, 2, 10, 100, 5000]))


def flip_a_bit(content: bytes, draw: Random) -> bytes:
    if not content:
        return content
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def delete(content: bytes, draw: Random) -> bytes:
    start, end = span(content, draw)
    return content[:start] + content[end:]


def repeat(content: bytes, draw: Random) -> bytes:
    start, end = span(content, draw)
    return content[:end] + content[start:end] * draw.choice([1, 1, 2, 100]) + content[end:]


def insert(content: bytes, draw: Random) -> bytes:
    start, _ = span(content, draw)
    more = draw.choice([b"\n", b"\r", b"\r\n", b" ", b"\t", b"\x0b", b"=", b"\0", b"\x85", "\u2028".encode()])
    return content[:start] + draw.choice([more, draw.randbytes(draw.randint(1, 9))]) + content[start:]


def start_otherwise(content: bytes, draw: Random) -> bytes:
    return draw.choice(STARTS) + content


def swap_two_lines(content: bytes, draw: Random) -> bytes:
    lines = content.split(b"\n")
    i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def swap_two_numbers(content: bytes, draw: Random) -> bytes:
    lines = [line.split(b" ") for line in content.split(b"\n")]
    i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[i][-1], lines[j][-1] = lines[j][-1], lines[i][-1]
    return b"\n".join(map(b" ".join, lines))


def edit_a_number(content: bytes, draw: Random) -> bytes:
    lines = [line.split(b" ") for line in content.split(b"\n")]
    lines[draw.randrange(len(lines))][-1] = draw.choice([*NUMBERS, b"%d" % draw.randrange(300)])
    return b"\n".join(map(b" ".join, lines))


def edit_a_token(content: bytes, draw: Random) -> bytes:
    lines = [line.split(b" ") for line in content.split(b"\n")]
    token = draw.choice([b"<|begin_of_text|>", b"a", b"", b"word", draw.randbytes(draw.randint(1, 50))])
    lines[draw.randrange(len(lines))][0] = base64.b64encode(token)
    return b"\n".join(map(b" ".join, lines))


def end_lines_otherwise(content: bytes, draw: Random) -> bytes:
    return content.replace(b"\n", draw.choice([b"\r\n", b"\r", b"\n\n", b" \n"]))


CHANGES = [
    flip_a_bit,
    delete,
    repeat,
    insert,
    start_otherwise,
    swap_two_lines,
    swap_two_numbers,
    edit_a_number,
    edit_a_token,
    end_lines_otherwise,
]


def refusal(file: Path) -> str | None:
    """What is said of a file, None if it is read; any exception but ours goes through."""
    try:
        dl.Tokenizer(file).encode(TEXT)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.long
def test_a_mutated_file_is_refused_or_read_as_meta_reads_it(tmp_path):
    """Catches any other exception, a vocabulary that is not the file's, and seconds spent on a small file."""
    file, outcomes = tmp_path / "tokenizer.model", Counter()
    for seed, content in mutated_inputs(int(os.environ.get("FUZZ", "2000"))):
        file.write_bytes(content)
        start = time.process_time()
        said = refusal(file)
        assert time.process_time() - start < SECONDS, seed
        outcomes["refused" if said else "read"] += 1
        if said:
            assert said.startswith(f"ValueError: {file} is "), (seed, said)
            assert len(said) < len(str(file)) + 300, (seed, said)
        else:
            ours, meta = dl.Tokenizer(file), MetaTokenizer(file)
            ids = ours.encode(TEXT)
            assert ids == meta.encode(TEXT, bos=False, eos=False), seed
            assert ours.decode(ids) == TEXT, seed
            assert {ours.token_bytes(token): token for token in range(ours.bos_id)} == load_bpe_file(file), seed
    print(dict(outcomes))
    assert min(outcomes["read"], outcomes["refused"]) > outcomes.total() / 20, outcomes
