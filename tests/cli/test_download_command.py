"""`download OWNER/NAME` from outside: what goes to which stream, and what the other commands make of it."""

import shutil
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer, use_hub
from typer.testing import CliRunner

from decoding_llama3.cli import app
from decoding_llama3.inference.checkpoint.find import checkpoint_path

NAME = "meta/tiny"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer() as hub:
        use_hub(hub.url, tmp_path / "home", monkeypatch)
        tiny = checkpoint_path("tiny")
        hub.add(NAME, {name: tiny / name for name in ("config.json", "model.safetensors", "tokenizer.model")})
        yield hub


def run(*args: str):
    return CliRunner().invoke(app, args)


def test_the_path_goes_to_standard_output_and_nothing_else(hub, tmp_path):
    result = run("download", NAME)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{checkpoint_path(NAME)}\n"
    assert result.stderr.startswith(f"{NAME}, version ")
    again = run("download", NAME)
    assert again.stdout == result.stdout
    assert "all of it here already" in again.stderr
    to = run("download", NAME, "--to", str(tmp_path / "mine"), "--revision", hub.models[NAME].commits["main"])
    assert to.stdout == f"{tmp_path / 'mine'}\n"


def test_what_was_downloaded_is_known_to_the_other_commands_by_its_name(hub):
    missing = run("generate", "Once", NAME)
    assert missing.exit_code == 2
    assert missing.stderr.endswith(f"on the Hugging Face Hub, run 'decoding-llama3 download {NAME}', once\n")
    assert f"run 'decoding-llama3 download {NAME}', once" in run("info", NAME).stderr
    run("download", NAME)
    assert [line for line in run("models").stdout.splitlines() if line.split()[:3] == [NAME, "5.6", "M"]]
    assert "6" in run("info", NAME).stdout
    args = ("-n", "8", "--temperature", "0", "--dtype", "float32")
    assert run("generate", "Once", NAME, *args).stdout == run("generate", "Once", "tiny", *args).stdout


def test_a_model_that_is_not_whole_is_listed_as_such(hub):
    place = Path(run("download", NAME).stdout.strip())
    (place / "model.safetensors").resolve().unlink()
    (line,) = (line for line in run("models").stdout.splitlines() if line.startswith(NAME))
    assert f"not loaded: {place} lacks model.safetensors: run 'decoding-llama3 download {NAME}' again" in line


def test_a_gated_model_ends_in_one_line_and_no_token_is_shown(hub, monkeypatch):
    hub.models[NAME].gated, hub.granted = True, set()
    for token in (None, TOKEN):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        result = run("download", NAME)
        assert result.exit_code == 2
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"error: {NAME} is gated")
        assert f"https://huggingface.co/{NAME}" in line
        assert TOKEN not in line


def test_a_disk_without_room_is_said_in_one_line(hub, monkeypatch):
    usage = shutil._ntuple_diskusage
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))
    (line,) = run("download", NAME).stderr.splitlines()
    assert line.startswith(f"error: {NAME} needs 11.2 MB more, but the disk of ")
    assert "has 1.0 MB free" in line
