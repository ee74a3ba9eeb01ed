"""What was typed or read comes out byte for byte; what a terminal would obey is made visible."""

import io
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from decoding_llama3.cli import app, terminal

TYPED = "I am :smile: and :b: [bold]happy[/bold] :warning:\ttab \b \v \f \r BEL\a \x1b[31mred \x85 ä \U0001f436"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("how", ["argument", "standard input"])
def test_a_prompt_comes_out_byte_for_byte(how):
    args = ["generate", TYPED if how == "argument" else "-", "-n", "0"]
    result = CliRunner().invoke(app, args, input=TYPED.encode())
    assert result.stdout_bytes == f"{TYPED}\n".encode()


def test_line_ends_of_a_prompt_stay_what_they_are():
    result = CliRunner().invoke(app, ["generate", "-", "-n", "0"], input=b"one\r\ntwo\rthree\n")
    assert result.stdout_bytes == b"one\r\ntwo\rthree\n\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("generate", "x", "my:dog:folder"), "no directory my:dog:folder"),
        (("train", ".", "--out", "out", "--held-out", "x", "--repeats", "a:b:c"), "no x"),
        (("bench", "--prompts", "[red]:b:"), "found '[red]:b:'"),
        (("info", "[b]a[/b]"), "no directory [b]a[/b], nor"),
        (("bench", "--json", "a\tb/c.json"), "--json a\tb/c.json lies"),
    ],
)
def test_a_value_in_an_error_comes_out_as_it_was_given(args, words):
    assert words in CliRunner().invoke(app, args).stderr


def test_control_characters_in_an_error_are_made_visible():
    result = CliRunner().invoke(app, ["generate", "x", "\x1b[31mRED\x1b]0;title\a\x9b1m\r\nno"])
    assert r"\x1b[31mRED\x1b]0;title\x07\x9b1m\r\nno" in result.stderr
    assert not set(result.stderr.rstrip("\n")) & {*map(chr, range(32)), *map(chr, range(127, 160))}


@pytest.mark.parametrize("code", [c for c in (*range(32), *range(127, 160)) if c not in (9, 10)])
def test_a_terminal_gets_no_control_character_from_a_model(code, monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    terminal.write_generated(f"a{chr(code)}b\n\tc ä")
    assert shown.getvalue() == f"a\\x{code:02x}b\n\tc ä"


def test_a_pipe_gets_what_the_model_wrote(monkeypatch):
    piped = io.StringIO()
    monkeypatch.setattr(sys, "stdout", piped)
    terminal.write_generated("a\x1b[31mb\r\n")
    assert piped.getvalue() == "a\x1b[31mb\r\n"


def test_a_prompt_is_not_changed_on_a_terminal(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    terminal.write(TYPED)
    assert shown.getvalue() == TYPED


def test_an_encoding_that_lacks_a_character_is_no_traceback():
    """As on a Windows console with an old code page."""
    command = [sys.executable, "-m", "decoding_llama3", "generate", "ä €", "-n", "0"]
    done = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "cp437", "PATH": ""}, check=True)
    assert done.stdout == "ä ?\n".encode("cp437")


def test_the_console_for_tables_takes_text_for_text(capsys):
    terminal.console().print("[bold]:b:[/bold] 1")
    assert capsys.readouterr().out == "[bold]:b:[/bold] 1\n"


def test_a_status_takes_text_for_text(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.waiting("loading a[b]:b:\x1b]0;title"):
        pass
    assert r"loading a[b]:b:\x1b]0;title" in shown.getvalue()
