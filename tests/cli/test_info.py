"""What `info` says of this machine, of pretended cards and of any model."""

import pytest
import torch
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli import machine
from decoding_llama3.cli.commands import app
from decoding_llama3.cli.machine import CARDS, describe, info_rows
from decoding_llama3.inference.devices import native_dtype
from decoding_llama3.inference.memory import check_memory, choose_fit, gib

LLAMA3 = ["llama3.2-1b", "llama3.2-3b", "llama3-8b", "llama3-70b", "llama3.1-405b"]


def run(*args: str):
    return CliRunner().invoke(app, ["info", *args], env={"COLUMNS": "200"})


def pretend(monkeypatch, *cards: tuple[str, tuple[int, int], int]) -> None:
    """Cards by name, capability and GB, all of it free."""

    def card(device=0):
        index = device if isinstance(device, int) else torch.device(device).index or 0
        return cards[index]

    answers = {
        "is_available": lambda: True,
        "device_count": lambda: len(cards),
        "get_device_name": lambda device=0: card(device)[0],
        "get_device_capability": lambda device=0: card(device)[1],
        "mem_get_info": lambda device=0: (card(device)[2] * 10**9, card(device)[2] * 10**9),
        "memory_reserved": lambda device=0: 0,
        "memory_allocated": lambda device=0: 0,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr("decoding_llama3.inference.devices.check_device", lambda device: None)


@pytest.mark.parametrize(
    ("name", "capability", "gb", "dtype", "found"),
    [
        ("T4", (7, 5), 15, "float16", ["float16", "float16", "int8", None, None]),
        ("L4", (8, 9), 24, "bfloat16", ["bfloat16", "bfloat16", "bfloat16", None, None]),
        ("A100", (8, 0), 40, "bfloat16", ["bfloat16", "bfloat16", "bfloat16", None, None]),
        ("A100", (8, 0), 80, "bfloat16", ["bfloat16", "bfloat16", "bfloat16", None, None]),
        ("H100", (9, 0), 85, "bfloat16", ["bfloat16", "bfloat16", "bfloat16", "int8", None]),
    ],
)
def test_info_says_how_a_card_runs_each_llama_3(name, capability, gb, dtype, found, monkeypatch):
    """A card of 80 GB that is sold has 85 of 10^9 bytes, and holds the 70B in int8, which needs 81.4."""
    pretend(monkeypatch, (name, capability, gb))
    rows = dict(info_rows(None))
    assert rows["dtype"] == dtype
    assert name in rows["cuda:0"]
    assert f"capability {capability[0]}.{capability[1]}" in rows["cuda:0"]
    for model, how in zip(LLAMA3, found, strict=True):
        assert (rows[model].split(",")[0] == how) if how else not rows[model].startswith(("int8,", "bfloat16,"))


@pytest.mark.parametrize(
    ("capability", "gb", "dtype", "quantize"),
    [
        ((7, 5), 15, torch.float16, "int8"),
        ((8, 9), 24, torch.bfloat16, None),
        ((8, 0), 40, torch.bfloat16, None),
        ((9, 0), 80, torch.bfloat16, None),
    ],
)
def test_what_info_says_of_a_card_is_what_is_loaded_there(capability, gb, dtype, quantize, monkeypatch):
    """The command line and the notebooks ask `choose_fit`; `load_model` then asks `check_memory`."""
    pretend(monkeypatch, ("card", capability, gb))
    config = dl.LlamaConfig.from_preset("llama3-8b")
    fit = choose_fit(config, "cuda")
    assert (fit.dtype, fit.quantize) == (dtype, quantize)
    assert dict(info_rows(None))["llama3-8b"].startswith(f"{fit}, {gib(fit.needed)}")
    check_memory(config, "cuda", fit.dtype, fit.quantize)
    with pytest.raises(ValueError, match=r"the largest preset that fits is llama3"):
        choose_fit(dl.LlamaConfig.from_preset("llama3.1-405b"), "cuda")


def test_each_of_several_cards_has_its_row(monkeypatch):
    pretend(monkeypatch, ("NVIDIA L4", (8, 9), 24), ("Tesla T4", (7, 5), 15))
    rows = dict(info_rows(None))
    assert "22.35 GiB" in rows["cuda:0"]
    assert rows["cuda:1"] == "Tesla T4, capability 7.5, 13.97 GiB, 13.97 GiB available"


# The 70B: 70,553,706,496 weights, and a cache of 327,680 bytes per token: 2.68 GB for 8,192 tokens, 10.74 GB for
# four such texts. A tenth of the whole is for activations: 168.7 GB in bfloat16 for four texts, 90.4 GB in int8.
@pytest.mark.parametrize(
    ("card", "batch", "words"),
    [
        ("T4", 4, "int8 on 8 such cards"),  # 11.3 of 15.6 GB each
        ("L4", 4, "bfloat16 on 8 such cards; int8 on 4 such cards"),  # 21.1 of 23.6 GB; 22.6 GB
        ("A100, 40 GB", 4, "bfloat16 on 4 such cards"),  # 42.18 of 42.31 GB
        ("A100, 80 GB", 4, "bfloat16 on 2 such cards"),  # 84.4 of 84.9 GB
        ("H100", 1, "int8, 75.82 GiB of 79.10 GiB; bfloat16 on 2 such cards"),
        ("laptop, 16 GB", 1, "does not fit: int8 needs 75.82 GiB, but 10.00 GiB are free"),
    ],
)
def test_a_model_is_estimated_for_common_cards(card, batch, words):
    kind, capability, memory = CARDS[card]
    config = dl.LlamaConfig.from_preset("llama3-70b")
    free = int(memory * 2**30)
    assert describe(config, native_dtype(kind, capability), free, kind == "cuda", 8192, batch) == words


def test_the_8b_fits_a_t4_and_a_laptop_in_int8_and_the_405b_no_eight_cards_of_40_gb():
    rows = dict(info_rows(dl.LlamaConfig.from_preset("llama3-8b")))
    assert rows["T4"].startswith("int8, 9.43 GiB of 14.56 GiB")
    assert rows["laptop, 16 GB"].startswith("int8")
    rows = dict(info_rows(dl.LlamaConfig.from_preset("llama3.1-405b")))
    assert rows["A100, 40 GB"].endswith("more than 8 such cards have")
    assert rows["H100"] == "int8 on 8 such cards"


def test_memory_is_told_in_gib_for_the_context_and_batch_that_are_asked_for():
    out = run("llama3-8b", "--context", "1000", "--batch", "3").stdout
    assert "29.92 GiB in float32, 14.96 GiB in bfloat16, 7.49 GiB in int8" in out
    needed = (2 * 8_030_261_248 + 3 * 1000 * 131_072) / 0.9 / 2**30
    assert f"{needed:.2f} GiB in bfloat16" in out
    assert " GB in " not in out


@pytest.mark.parametrize("preset", dl.PRESETS)
def test_every_preset_has_an_estimate(preset):
    out = run(preset).stdout
    assert all(card in out for card in CARDS)
    assert f"{dl.LlamaConfig.from_preset(preset).n_params:,}" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("llama3-8b", "--context", "8193"), "a context of 8,193 tokens, but this model reads 1 to 8,192"),
        (("llama3-8b", "--context", "0"), "a context of 0 tokens"),
        (("--batch", "4"), "found --context or --batch without a model"),
        (("--context", "4"), "found --context or --batch without a model"),
    ],
)
def test_what_cannot_be_estimated_is_told_in_one_sentence(args, words):
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_info_lists_the_machine_and_llama_3_first():
    out = run().stdout
    for row in ("Python", "torch", "compiler", "memory", "device", "dtype", *LLAMA3, "Llama 3 tokenizer"):
        assert row in out
    assert torch.__version__ in out
    assert "mistral" not in out


def test_what_is_missing_is_named_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setattr(machine, "version", lambda package: None)
    assert "pip install 'decoding-llama3[lab]'" in " ".join(run().stdout.split())


def test_mps_shares_the_memory_of_the_machine_and_computes_in_float16(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr("decoding_llama3.inference.devices.check_device", lambda device: None)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 11 * 2**30)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 2**34, "available": 2**34}))
    rows = dict(info_rows(None))
    assert (rows["device"], rows["dtype"]) == ("mps", "float16")
    assert rows["llama3-8b"] == "int8, 9.43 GiB of 10.00 GiB"
