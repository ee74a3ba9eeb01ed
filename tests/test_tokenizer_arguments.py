"""What a tokenizer is given by mistake, or by other libraries' habits, is told in a sentence."""

import numpy as np
import pytest
import torch
from llama_models.datatypes import RawMessage

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.find import checkpoint_path

OURS = dl.load_tokenizer("llama3")
IDS = [9906, 11, 1917, 0]


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        ({"role": "king", "content": "x"}, ValueError, r"one of system, user, assistant, ipython, found 'king'"),
        ({"role": "tool", "content": "x"}, ValueError, r"found 'tool'"),
        ({"role": "User", "content": "x"}, ValueError, r"found 'User'"),
        ({"role": ["user"], "content": "x"}, ValueError, r"found \['user'\]"),
        ({"role": np.array(["user", "user"]), "content": "x"}, ValueError, r"the role of a message is one of"),
        ({"role": "user"}, ValueError, r"a dict with the keys role and content, found \{'role': 'user'\}"),
        ({"role": "user", "content": "x", "name": "y"}, ValueError, r"a dict with the keys role and content"),
        ("hello", ValueError, r"a dict with the keys role and content, found 'hello'"),
        (RawMessage(role="user", content="x"), ValueError, r"a dict with the keys role and content"),
        (
            {"role": "user", "content": None},
            TypeError,
            r"is a string or text parts, found None: pass the",
        ),
        ({"role": "user", "content": 5}, TypeError, r"found 5: pass the text alone"),
        ({"role": "user", "content": b"x"}, TypeError, r"found b'x': pass the text alone"),
        (
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image"}]},
            TypeError,
            r"found \[\{'type': 'text', 'text': 'hi'\}, \{'type': 'image'\}\]: pass the text alone",
        ),
    ],
    ids=[
        "role",
        "tool",
        "capital",
        "list as role",
        "array as role",
        "no content",
        "one key more",
        "no dict",
        "Meta's message",
        "None",
        "integer",
        "bytes",
        "a part that is no text",
    ],
)
def test_a_message_that_is_none_is_told(message, error, words):
    """Catches a role that no model was trained on, and the parts of another library's messages."""
    with pytest.raises(error, match=words) as raised:
        OURS.encode_chat([{"role": "user", "content": "x"}, message])
    assert len(str(raised.value)) < 250


def test_a_content_may_come_in_parts():
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "RoPE?"}]
    whole = [{"role": "user", "content": "What is RoPE?"}]
    assert OURS.encode_chat([{"role": "user", "content": parts}]) == OURS.encode_chat(whole)


@pytest.mark.parametrize("messages", [None, 5, "hello", {"role": "user", "content": "hello"}])
def test_a_chat_is_a_list_of_messages(messages):
    """Catches a lone message, whose keys would be taken for messages."""
    with pytest.raises(TypeError, match="encode_chat takes a list of messages, found"):
        OURS.encode_chat(messages)


@pytest.mark.parametrize("text", [b"hello", None, 5, ["hello"]])
def test_encode_takes_a_string_only(text):
    """A list would be joined, bytes decoded as who knows what."""
    with pytest.raises(TypeError, match=f"encode takes a string, found {type(text).__name__}: decode bytes"):
        OURS.encode(text)


@pytest.mark.parametrize("flag", [3, 1, 0, -1, None, "yes"])
@pytest.mark.parametrize("name", ["bos", "eos"])
def test_bos_and_eos_are_flags(name, flag):
    """Catches bos=3, which gave three of them."""
    with pytest.raises(TypeError, match="bos and eos are True or False, found"):
        OURS.encode("hello", **{name: flag})


@pytest.mark.parametrize(
    "ids",
    [
        tuple(IDS),
        np.array(IDS),
        np.array(IDS, dtype=np.uint32),
        torch.tensor(IDS),
        torch.tensor(IDS, dtype=torch.int32),
        list(np.array(IDS)),
        list(torch.tensor(IDS)),
    ],
    ids=["tuple", "array", "uint32", "tensor", "int32", "list of array's", "list of tensor's"],
)
def test_any_sequence_of_integers_decodes(ids):
    assert OURS.decode(ids) == OURS.decode(iter(ids)) == "".join(OURS.decode_stream(ids)) == "Hello, world!"
    assert OURS.decode(ids[:0]) == ""
    assert b"".join(OURS.token_bytes(token) for token in ids) == b"Hello, world!"


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.tensor([IDS, IDS]), r"an integer, found \[9906, 11, 1917, 0\]: pass the integers of one sequence"),
        (torch.tensor([[9906], [11]]), r"found \[9906\]: pass"),
        (list(torch.tensor([[9906], [11]])), r"found \[9906\]: pass"),
        (np.array([IDS]), r"found \[9906, 11, 1917, 0\]"),
        ([IDS], r"found \[9906, 11, 1917, 0\]"),
        ([list(range(100_000))], r"found \[0, 1, 2"),
        ([9906.0], r"found 9906\.0"),
        (np.array([9906.0]), r"found 9906\.0"),
        (torch.tensor([9906.0]), r"found 9906\.0"),
        ([True], r"found True"),
        (torch.tensor([True]), r"found True"),
        (np.array([True]), r"found True"),
        (["Hello"], r"found 'Hello'"),
        ([None], r"found None"),
        ({"input_ids": IDS}, r"found 'input_ids'"),
        ("Hello", r"decode takes token ids, found 'Hello': pass the integers of one sequence"),
        (b"Hello", r"decode takes token ids, found b'Hello'"),
        (5, r"decode takes token ids, found 5"),
        (None, r"decode takes token ids, found None"),
        (torch.tensor(5), r"decode takes token ids, found 5"),
    ],
    ids=[
        "2-D tensor",
        "column",
        "list of 1-D tensors",
        "2-D array",
        "nested list",
        "long nested list",
        "floats",
        "float array",
        "float tensor",
        "bools",
        "bool tensor",
        "bool array",
        "words",
        "None in it",
        "dict",
        "text",
        "bytes",
        "integer",
        "None",
        "0-d tensor",
    ],
)
def test_what_is_no_sequence_of_integers_is_told(ids, words):
    """Catches a batch, floats that were rounded, True for token 1, and the bytes of a text taken for ids."""
    for decode in (OURS.decode, lambda ids: list(OURS.decode_stream(ids))):
        with pytest.raises(TypeError, match=words) as error:
            decode(ids)
        assert len(str(error.value)) < 200


@pytest.mark.parametrize("token", [None, "a", b"a", 1.0, True, [1], torch.tensor([1]), np.array([1])], ids=repr)
def test_a_token_is_an_integer(token):
    with pytest.raises(TypeError, match="a token id is an integer, found"):
        OURS.token_bytes(token)


@pytest.mark.parametrize("names", [["<a>", "<a>"], ["<|eot_id|>"], "<pad>"], ids=["repeated", "special", "string"])
def test_added_tokens_have_names_of_their_own(names):
    """Catches a name that would move a special token to another id, and a string taken for its letters."""
    with pytest.raises(ValueError, match="added_tokens is a list of distinct new names, found"):
        dl.Tokenizer(checkpoint_path("tiny") / "tokenizer.model", names)
