"""`chat`: one conversation, held in one generator, that never outgrows the context."""

import dataclasses
import json
import re

import pytest
from conftest import randomize, shrink
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli import app
from decoding_llama3.cli.conversation import Conversation
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.generator import Generator
from decoding_llama3.inference.prefix import prefix_length

SYSTEM = "You are a king and say little, but what you say is kind and true."
TINY = dl.inference.data.data_directory() / "tiny-llama3"


@pytest.fixture
def tokenizer():
    return dl.load_tokenizer("tiny")


@pytest.fixture
def instruct(tmp_path, tokenizer):
    """A random model with a context of 256 tokens and a tokenizer."""
    shape = dataclasses.replace(shrink("llama3-8b"), vocab_size=tokenizer.n_vocab, max_seq_len=256)
    save_huggingface(randomize(dl.Transformer(shape)), tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((TINY / "tokenizer.model").read_bytes())
    return tmp_path


def chat(folder, text: str, *options: str):
    args = ["chat", str(folder), "--temperature", "0", "--dtype", "float32", *options]
    result = CliRunner().invoke(app, args, input=text)
    assert result.exit_code == 0, result.output
    return result


def tokens_read(result) -> list[int]:
    return [int(n) for n in re.findall(r"prompt: (\d+) tokens read", result.stderr)]


def say(conversation: Conversation, message: str, answer: str) -> tuple[list[int], int]:
    prompt, n_dropped = conversation.prompt(message)
    conversation.add(message, conversation.tokenizer.encode(answer))
    return prompt, n_dropped


@pytest.mark.parametrize("system", [None, "", SYSTEM])
def test_the_ids_of_a_conversation_are_those_of_its_messages(tokenizer, system):
    conversation = Conversation(tokenizer, 512, 20, system)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for message, answer in (("Who are you?", "A king."), ("And I?", "A guest."), ("Why?", "You came.")):
        messages.append({"role": "user", "content": message})
        prompt, n_dropped = say(conversation, message, answer)
        assert prompt == tokenizer.encode_chat(messages)
        assert n_dropped == 0
        messages.append({"role": "assistant", "content": answer})


def test_the_oldest_turns_go_when_the_context_is_full_and_the_system_message_stays(tokenizer):
    conversation = Conversation(tokenizer, 128, 20, SYSTEM)
    beginning = tokenizer.encode_chat([{"role": "system", "content": SYSTEM}])
    beginning = beginning[: len(beginning) - len(tokenizer.encode_chat([])) + 1]
    dropped = []
    for turn in range(12):
        prompt, n_dropped = say(conversation, f"Who is number {turn}?", f"It is the king {turn}.")
        dropped.append(n_dropped)
        assert prompt[: len(beginning)] == beginning
        assert len(prompt) + 20 <= 128
        kept = tokenizer.decode(prompt)
        first = sum(dropped)
        assert [f"number {i}?" in kept for i in range(turn + 1)] == [i >= first for i in range(turn + 1)]
    assert dropped[0] == 0 < sum(dropped)


def test_turns_stay_where_there_is_just_room_and_go_where_one_token_lacks(tokenizer):
    prompt, _ = say(Conversation(tokenizer, 512, 20), "Who are you?", "A king.")
    answer = tokenizer.encode("A king.")
    asked = tokenizer.encode_chat([{"role": "user", "content": "And I?"}])[1:]
    needed = len(prompt) + len(answer) + 1 + len(asked) + 10  # the end of the turn, and an answer of 10
    for context, n_dropped in ((needed, 0), (needed - 1, 1)):
        conversation = Conversation(tokenizer, context, 10)
        say(conversation, "Who are you?", "A king.")
        assert conversation.prompt("And I?")[1] == n_dropped


def test_a_message_too_long_by_itself_is_refused_and_nothing_changes(tokenizer):
    conversation = Conversation(tokenizer, 128, 20, "Be kind.")
    say(conversation, "Who are you?", "A king.")
    with pytest.raises(ValueError, match="too long for the context of 128 with an answer of 20: shorten it"):
        conversation.prompt("very " * 99 + "old?")
    prompt, n_dropped = conversation.prompt("And I?")
    assert n_dropped == 0
    assert "Who are you?" in tokenizer.decode(prompt)


def test_only_new_tokens_are_read_in_later_turns(instruct, tokenizer):
    first, second, third = tokens_read(chat(instruct, "Who?\nWho?\nWho?\n\n", "-n", "4", "--system", SYSTEM))
    assert first == len(
        tokenizer.encode_chat([{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Who?"}])
    )
    new = len(tokenizer.encode_chat([{"role": "user", "content": "Who?"}])) - 1
    assert second == third == new + 2  # the last token of the answer, which was never read, and its end


def test_answers_are_those_of_the_whole_conversation_read_anew(instruct, tokenizer):
    answers = chat(instruct, "Who?\nAnd I?\n\n", "-n", "4").stdout_bytes.decode().splitlines()
    model, stops = dl.load_model(instruct, dtype=dl.config.torch.float32), tokenizer.stop_ids
    conversation = Conversation(tokenizer, 256, 4)
    for message, answer in zip(("Who?", "And I?"), answers, strict=True):
        prompt, _ = conversation.prompt(message)
        ids = list(Generator(model).generate(prompt, 4, stop_ids=stops))
        assert answer == tokenizer.decode(ids)
        conversation.add(message, ids)


def test_a_full_context_is_said_and_the_talk_goes_on(instruct):
    result = chat(instruct, "Tell me of the king.\n" * 12 + "\n", "-n", "30")
    assert re.search(
        r"the context of 256 tokens is full: the oldest (turn is|\d turns are) forgotten", result.stderr
    )
    assert result.stderr.count("you: ") == 13
    assert len(tokens_read(result)) == 12


def test_a_message_too_long_is_not_sent_and_asked_again(instruct):
    result = chat(instruct, "old " * 300 + "\nWho?\n\n", "-n", "4")
    assert "too long for the context of 256" in result.stderr
    assert "shorten it; it was not sent" in result.stderr
    assert len(tokens_read(result)) == 1


def test_an_answer_that_was_cut_is_said_to_be(instruct):
    assert "cut after 4 tokens: --tokens sets" in chat(instruct, "Who?\n\n", "-n", "4").stderr
    result = chat(instruct, "Who?\n\n", "-n", "500")
    assert "the answer was cut, because the context is full" in result.stderr


@pytest.mark.parametrize("text", ["", "\n", "Who?\n", "Who?\n\n", "Who?\n   \n"])
def test_an_empty_line_or_the_end_of_the_input_ends_the_talk(instruct, text):
    assert len(tokens_read(chat(instruct, text, "-n", "2"))) == text.count("?")


@pytest.mark.parametrize("after", [0, 1, 3])
def test_control_c_stops_the_answer_and_not_the_talk(instruct, monkeypatch, after):
    """Whatever was read of the prompt until then, the next answer is that of a conversation read anew."""
    plain, turns = Generator.generate, []

    def interrupted(self, prompt, *args, **how):
        turns.append(list(prompt))
        tokens = plain(self, prompt, *args, **how)
        return stop_after(tokens) if len(turns) == 2 else tokens  # the first call only checks the arguments

    def stop_after(tokens):
        for _ in range(after):
            yield next(tokens)
        raise KeyboardInterrupt

    monkeypatch.setattr(Generator, "generate", interrupted)
    result = chat(instruct, "Who?\nAnd I?\n\n", "-n", "6")
    assert "the answer was stopped" in result.stderr
    _, answer = result.stdout_bytes.decode().split("\n", 1)
    tokenizer, model = dl.load_tokenizer("tiny"), dl.load_model(instruct, dtype=dl.config.torch.float32)
    expected = list(plain(Generator(model), turns[2], 6, stop_ids=tokenizer.stop_ids))
    assert answer == tokenizer.decode(expected) + "\n"
    assert (prefix_length(turns[1], turns[2]) == len(turns[1])) == (after > 0), "an answer of nothing is forgotten"


def test_control_c_while_the_prompt_is_read_leaves_no_wrong_cache(instruct, monkeypatch):
    """The generator counts a chunk of the prompt as read before it is."""
    plain, calls = dl.Transformer.hidden, []

    def interrupted(self, tokens, *args):
        calls.append(tokens)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return plain(self, tokens, *args)

    monkeypatch.setattr(dl.Transformer, "hidden", interrupted)
    stopped = chat(instruct, "Who?\nWho?\n\n", "-n", "6").stdout
    monkeypatch.undo()
    assert stopped == "\n" + chat(instruct, "Who?\n\n", "-n", "6").stdout


def test_the_same_seed_gives_the_same_talk_and_not_the_same_draws_in_each_turn(instruct):
    options = ("-n", "8", "--temperature", "1", "--top-p", "1", "--seed", "3")
    first, again = (chat(instruct, "Who?\nWho?\n\n", *options).stdout for _ in range(2))
    assert first == again
    assert first != chat(instruct, "Who?\nWho?\n\n", *options[:-1], "4").stdout


def test_the_tokens_are_shown_if_asked_for(instruct, tokenizer):
    shown = chat(instruct, "Who?\n\n", "-n", "3", "--show-tokens").stderr
    prompt = tokenizer.encode_chat([{"role": "user", "content": "Who?"}])
    (line,) = re.findall(r"prompt: (\d+ '.*\|.*)$", shown, flags=re.MULTILINE)
    found = [entry.split(" ", 1) for entry in line.split(" | ")]
    assert [int(token) for token, _ in found] == prompt
    assert found[0][1] == "'<|begin_of_text|>'"
    (answer,) = re.findall(r"^answer: (.*)$", shown, flags=re.MULTILINE)
    assert len(answer.split(" | ")) == 3
    assert "answer:" not in chat(instruct, "Who?\n\n", "-n", "3").stderr


def test_a_base_model_is_said_to_be_one(instruct):
    said = "has no chat template: a base model"
    assert said not in chat(instruct, "\n").stderr
    (instruct / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|begin_of_text|>"}))
    assert said in chat(instruct, "\n").stderr
    (instruct / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert said not in chat(instruct, "\n").stderr


def test_what_a_model_was_told_to_be_is_kept_byte_for_byte(instruct, tokenizer):
    """Markup and emoji codes in a message are text."""
    message = "I am :smile: [b]happy[/b]"
    (read,) = tokens_read(chat(instruct, f"{message}\n\n", "-n", "1"))
    assert read == len(tokenizer.encode_chat([{"role": "user", "content": message}]))
