"""The file a vocabulary comes in: a right one is read as Meta reads it, any other is told in a sentence."""

import base64
import os
import time

import pytest
from llama_models.llama3.tokenizer import Tokenizer as MetaTokenizer

import decoding_llama3 as dl
from decoding_llama3.tokenizer_file import MAX_BYTES

BYTES = [base64.b64encode(bytes([b])) + b" %d" % b for b in range(256)]
LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55\nsize 2183982\n"
)
SENTENCEPIECE = b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n\x0c\n\x03<s>\x15"
NOT_ONE = "is damaged or not a Llama 3 tokenizer.model: line {} should be 'base64 rank', found "


def lines(*more: bytes) -> bytes:
    return b"\n".join([*BYTES, *more])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SENTENCEPIECE, "is a SentencePiece file, as of Llama 2 and Mistral, .* tokenizer.model of a Llama 3"),
        (LFS, "is a Git LFS pointer, .* run 'git lfs pull' in its folder, or download the file itself"),
        (b"", "is empty: download it again"),
        (b"\n", "256 of the 256 single bytes are no tokens"),
        (b'{"version": "1.0", "model": {"type": "BPE"}}', NOT_ONE.format(1) + r"b'\{\"version"),
        (b"<!DOCTYPE html>\n<html>", NOT_ONE.format(1) + "b'<!DOCTYPE html>'"),
        (b"\xef\xbb\xbf" + lines(), NOT_ONE.format(1)),
        (lines().decode().encode("utf-16"), NOT_ONE.format(1)),
        (b"\0" * 5000, NOT_ONE.format(1)),
        (lines(b"Y!WI= 256"), NOT_ONE.format(257) + "b'Y!WI= 256'"),
        (lines(b"YWI 256"), NOT_ONE.format(257)),
        (lines(b" 256"), NOT_ONE.format(257)),
        (lines(b"== 256"), NOT_ONE.format(257)),
        (lines(b"YWI="), NOT_ONE.format(257)),
        (lines(b"YWI= 256 257"), NOT_ONE.format(257)),
        (lines(b"YWI= 2_56"), NOT_ONE.format(257)),
        (lines(b"YWI= +256"), NOT_ONE.format(257)),
        (lines(b"YWI= -1"), NOT_ONE.format(257)),
        (lines(b"YWI= 256.0"), NOT_ONE.format(257)),
        (lines("YWI= ٢٥٦".encode()), NOT_ONE.format(257)),
        (lines(b"YWI= " + b"5" * 5000), NOT_ONE.format(257)),
        (lines(b"A" * 100_000), NOT_ONE.format(257)),
        (lines(b"YWI= 999999999"), "its 257 tokens have not the ranks 0 to 256, once each"),
        (lines(b"YWI= 300"), "its 257 tokens have not the ranks 0 to 256, once each"),
        (lines(b"YWI= 255"), "its 257 tokens have not the ranks 0 to 256, once each"),
        (lines(b"YWI= 257", b"YWI= 256"), "it has 258 lines, but only 257 different tokens"),
        (lines(b"YWI= 256", b"YWI= 256"), "it has 258 lines, but only 257 different tokens"),
        (b"\n".join(BYTES[:255]), r"1 of the 256 single bytes are no tokens, first b'\\xff'; download it again"),
        (b"\n".join([*BYTES[:255], b"YWI= 255"]), r"1 of the 256 single bytes are no tokens, first b'\\xff'"),
        (
            lines(base64.b64encode(b"<|begin_of_text|>") + b" 256"),
            r"the special token <\|begin_of_text\|> is among its ordinary ones",
        ),
    ],
    ids=[
        "SentencePiece",
        "Git LFS",
        "empty",
        "blank",
        "JSON",
        "HTML",
        "byte order mark",
        "UTF-16",
        "zeros",
        "base64",
        "no padding",
        "no token",
        "padding alone",
        "no rank",
        "two ranks",
        "underscore",
        "plus",
        "minus",
        "fraction",
        "Arabic digits",
        "5,000 digits",
        "100,000 letters",
        "huge rank",
        "gap",
        "rank twice",
        "token twice",
        "line twice",
        "short",
        "no ff",
        "special token",
    ],
)
def test_a_file_that_is_no_vocabulary_is_told(content, words, tmp_path):
    """Catches a damaged download that loads: its ids would be shifted against the model's rows."""
    file = tmp_path / "tokenizer.model"
    file.write_bytes(content)
    start = time.process_time()
    with pytest.raises(ValueError, match=words) as error:
        dl.Tokenizer(file)
    assert time.process_time() - start < 1
    assert str(file) in str(error.value)
    assert len(str(error.value).replace(str(file), "")) < 300
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_may_end_as_on_windows_and_stand_in_any_order(end, tmp_path):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(end.join([b"YWI= 256", b"", *reversed(BYTES), b""]))
    ours, meta = dl.Tokenizer(file), MetaTokenizer(file)
    assert ours.encode("abacus, ab!") == meta.encode("abacus, ab!", bos=False, eos=False)
    assert (ours.n_vocab, ours.special_ids) == (meta.n_words, meta.special_tokens)
    assert ours.token_bytes(256) == b"ab"


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer file .*nowhere\.model \(not found\): pass that of"):
        dl.Tokenizer(tmp_path / "nowhere.model")


def test_a_directory_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer file .* \(not a regular file\): pass that of a Llama 3"):
        dl.Tokenizer(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match="not a regular file"):
        dl.Tokenizer(tmp_path / "tokenizer.model")


def test_a_name_that_no_file_can_have_is_told():
    with pytest.raises(ValueError, match="cannot be read: File name too long"):
        dl.Tokenizer("x" * 5000)


def test_a_file_far_too_large_is_not_read(tmp_path):
    """A checkpoint's weights, say. The file has no blocks on disk, but would fill the memory."""
    file = tmp_path / "tokenizer.model"
    with file.open("wb") as opened:
        opened.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match=r"has 67,108,865 bytes, but a tokenizer\.model of Llama 3 has 2 million"):
        dl.Tokenizer(file)
