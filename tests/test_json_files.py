"""A JSON object is read from a text or a file without trust: every fault is one sentence that names the file."""

import codecs
import json
import os
import re

import numpy as np
import pytest
from test_config import TYPED

import decoding_llama3 as dl
from decoding_llama3.json_files import LARGEST_FILE, read_json, shown

READERS = {"params.json": dl.LlamaConfig.from_params_json, "config.json": dl.LlamaConfig.from_huggingface}


@pytest.fixture(params=READERS)
def read(request):
    return READERS[request.param]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{", "the (params|config).json given as text is not valid JSON .*: download it again"),
        ("\ufeff{", "given as text is not valid JSON"),
        ("nowhere.json", "no file nowhere.json: pass the path of a (params|config).json, or its text"),
        ("[1, 2]", r"no file \[1, 2\]: pass the path of a (params|config).json, or its text"),
        ("no\x1b[31m\n\0where", r"no file 'no\\x1b\[31m\\n\\x00where': pass the path"),
        ("\ud800", r"no file '\\ud800': pass the path"),
        ("x" * 5000, r"(no file |)\.\.\.x{117}"),
        ("{}", "lacks (dim|model_type), .*: is it the file of a Llama model, whole"),
        ('{"a":' + "[" * 100_000, "given as text is nested too deeply: is it a (params|config).json"),
        ('{"a":' * 100_000, "given as text is nested too deeply: is it a (params|config).json"),
        ('{"dim": ' + "9" * 5000 + "}", "sets 'dim' to inf, or to a number too large .* at most 100 digits"),
        ('{"dim": -' + "9" * 5000 + "}", "sets 'dim' to inf, or to a number too large"),
        (
            '{"hidden_size": NaN}',
            "sets 'hidden_size' to nan, or to a number too large to be read: expected a finite",
        ),
        ('{"a": {"b": -Infinity}}', "sets 'b' to -inf"),
        ('{"a": 1e999}', "sets 'a' to inf"),
        ('{"dim": 64, "x": 0, "dim": 65}', "sets 'dim' twice, to 64 and to 65: which of the two is right"),
        ('{"a": {"b": 1, "b": true}}', "sets 'b' twice, to 1 and to true"),
        (
            '{"\\u001b[31mred\\u001b]0;title": 1, "\\u001b[31mred\\u001b]0;title": 2}',
            r"sets '\\x1b\[31mred\\x1b\]0;title",
        ),
    ],
    ids=lambda case: "".join(filter(str.isalnum, case[:12])) or "other",
)
def test_a_text_that_is_no_configuration_is_refused(read, source, words):
    with pytest.raises(ValueError, match=words) as caught:
        read(source)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("source", [None, {"dim": 1}, b"{}", 5, ["{}"]], ids=lambda source: type(source).__name__)
def test_what_is_neither_text_nor_path_is_refused(read, source):
    words = rf"a (params|config)\.json is given as text or path, found {type(source).__name__}"
    with pytest.raises(TypeError, match=None if TYPED else words):
        read(source)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not valid JSON"),
        (b"[1, 2]", "holds a JSON list, expected an object"),
        (b"12", "holds a JSON int, expected an object"),
        (b"\x80", r"is not UTF-8 text \(byte 0x80 at 0\): save it as UTF-8"),
        ('{"name": "König"}'.encode("latin-1"), r"is not UTF-8 text \(byte 0xf6 at 11\)"),
        ('{"name": "König"}'.encode("utf-16"), r"is not UTF-8 text \(byte 0xff at 0\)"),
        ('{"name": 1}'.encode("utf-16-le"), "is not valid JSON"),
        ('{"name": 1}'.encode("utf-32"), "is not UTF-8 text"),
        (b" " * (LARGEST_FILE + 1), "has over 16,777,216 bytes: is it a .*json"),
    ],
    ids=["empty", "list", "number", "bytes", "latin-1", "utf-16", "utf-16-le", "utf-32", "too large"],
)
def test_a_file_that_is_no_configuration_is_refused_by_its_name(read, content, words, tmp_path):
    file = tmp_path / "some.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(file))} {words}"):
        read(file)


def test_a_byte_order_mark_is_skipped(tmp_path):
    """Windows Notepad writes one."""
    (tmp_path / "x.json").write_bytes(codecs.BOM_UTF8 + b'{"dim": 1}')
    assert read_json(tmp_path / "x.json", "x.json") == ({"dim": 1}, str(tmp_path / "x.json"))
    assert read_json('\ufeff {"dim": 1}', "x.json")[0] == {"dim": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_pipes_and_devices_are_never_opened(read, tmp_path):
    """The first would block, the second never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match=rf"{path} is no regular file: pass the path of a"):
            read(path)


def test_a_directory_in_the_place_of_the_file_is_refused(read, tmp_path):
    for name in READERS:
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"(params|config)\.json is no regular file"):
        read(tmp_path)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root reads every file")
def test_a_file_without_permission_is_refused(read, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.json").chmod(0)
    with pytest.raises(ValueError, match=r"x\.json cannot be read: Permission denied"):
        read(tmp_path / "x.json")


def test_a_link_is_followed(tmp_path):
    """The cache of Hugging Face holds links to files elsewhere."""
    (tmp_path / "blob").write_text('{"a": 1}')
    (tmp_path / "config.json").symlink_to(tmp_path / "blob")
    assert read_json(tmp_path, "config.json")[0] == {"a": 1}
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ValueError, match="loop"):
        read_json(tmp_path / "loop", "config.json")


def test_a_key_repeated_with_the_same_value_is_read():
    assert read_json('{"a": 1, "a": 1.0, "b": {"c": [1]}, "b": {"c": [1]}}', "x.json")[0] == {
        "a": 1,
        "b": {"c": [1]},
    }


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1000,
        10**99,
        [[[[[[1]]]]]] * 9,
        {str(i): i for i in range(99)},
        "\x1b[31m\u202e\n\ud800",
        None,
        True,
        -0.5,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_shown_short_and_printable(value):
    assert shown(value).isprintable()
    assert 0 < len(shown(value)) <= 80
    assert len(shown(value, 40)) <= 40
    assert json.dumps(value)  # what a file can hold


def test_what_a_gguf_file_holds_is_shown_short_and_printable():
    """Catches the line breaks of a long array of numpy, and a text in the middle of a list."""
    for value in (np.arange(40), ["\x1b[31m"] * 5, np.float32(1e30), b"\xff" * 99):
        assert shown(value).isprintable()
        assert len(shown(value)) <= 80
