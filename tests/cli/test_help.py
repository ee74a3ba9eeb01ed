"""Help and version come at once and load nothing that computes; what help says of other files is so."""

import re
import subprocess
import sys
from typing import get_type_hints

import pytest
from typer.testing import CliRunner

from decoding_llama3.benchmark import measure
from decoding_llama3.benchmark.engines import OURS
from decoding_llama3.benchmark.huggingface import BASELINES
from decoding_llama3.benchmark.models import SHAPES
from decoding_llama3.cli import app, bench, generate, options

COMMANDS = [command.callback.__name__ for command in app.registered_commands]
HEAVY = {"torch", "numpy", "tiktoken", "safetensors", "matplotlib", "jaxtyping", "psutil", "transformers"}
CALLS = [
    ["--help"],
    ["--version"],
    *([name, "--help"] for name in COMMANDS),
    ["train"],
    ["generate", "x", "-n", "x"],
]


@pytest.mark.parametrize("args", CALLS, ids=" ".join)
def test_help_version_and_usage_errors_load_nothing_that_computes(args):
    script = (
        "import sys\nfrom decoding_llama3.cli import main\nsys.argv[1:] = sys.argv[1:]\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True)
    *said, modules = done.stderr.splitlines()
    assert done.returncode == (0 if args[-1].startswith("--") else 2), said
    assert {name.partition(".")[0] for name in modules.split()} & (HEAVY | {"decoding_llama3"}) == {
        "decoding_llama3"
    }


def shown(*args: str) -> str:
    """The text of help, without its frames and line breaks."""
    result = CliRunner().invoke(app, args, env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0, result.output
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.stdout)


def test_the_command_alone_shows_its_help():
    assert shown() == shown("--help")
    assert all(f" {name} " in shown() for name in COMMANDS)


def test_the_version_is_that_of_the_installed_package():
    assert re.fullmatch(r"decoding-llama3 \S+, torch [\d.]+\S*, Python [\d.]+ ", shown("--version"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    command = next(c for c in app.registered_commands if c.callback.__name__ == name).callback
    for parameter, hint in get_type_hints(command, include_extras=True).items():
        if parameter != "return":
            assert len(hint.__metadata__[0].help) > 10, parameter


def test_help_of_generate_says_how_the_text_is_drawn():
    text = shown("generate", "--help")
    assert f"Default: {generate.TINY_TEMPERATURE} for tiny" in text
    assert "else 0" in text
    assert "control characters are shown as \\x1b" in text


def test_help_of_bench_says_what_benchmark_does():
    text = shown("bench", "--help")
    for formula in measure.FORMULAS.values():
        assert formula in text
    assert tuple(SHAPES) == bench.SHAPES
    assert tuple(OURS) == bench.ENGINES
    assert tuple(BASELINES) == bench.BASELINES


def test_the_dtypes_of_the_command_are_dtypes_of_torch():
    import torch

    assert all(isinstance(getattr(torch, name), torch.dtype) for name in options.DTYPES)


def test_both_spellings_of_the_command_name_themselves():
    module = [sys.executable, "-m", "decoding_llama3", "--help"]
    entry = [sys.executable, "-c", "from decoding_llama3.cli import main; main()", "--help"]
    for command, name in ((module, "python -m decoding_llama3"), (entry, "decoding-llama3")):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert f"Usage: {name} [OPTIONS]" in done.stdout
