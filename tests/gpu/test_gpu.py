"""What only a card can show: the CPU's numbers from its kernels, in little memory, and graphs recorded once."""

import copy

import pytest
import torch
from conftest import randomize, relative_difference, shrink

import decoding_llama3 as dl
from decoding_llama3.benchmark.work import tensor_bytes
from decoding_llama3.inference.compile import compile_model
from decoding_llama3.inference.devices import choose_dtype
from decoding_llama3.inference.generator import Generator
from decoding_llama3.inference.quantize import quantize_int8

DEVICE = "cuda"
TOKENS = torch.tensor([[5, 77, 130, 9, 64, 301, 12, 200, 33, 4, 19]])
LONG = torch.randint(320, (1, 2048), generator=torch.Generator().manual_seed(1))
HALF = choose_dtype(DEVICE) if torch.cuda.is_available() else torch.bfloat16
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card, and there is none"),
    pytest.mark.filterwarnings("default"),  # which warnings torch gives depends on the card
]


def pair(dtype: torch.dtype, quantize: bool = False) -> tuple[dl.Transformer, dl.Transformer]:
    """One model on the CPU, in float32, and on the card, in `dtype`: of the same weights, rounded to `dtype`."""
    on_cpu = randomize(dl.Transformer(shrink("llama3-8b")).requires_grad_(False)).to(dtype)
    on_card = copy.deepcopy(on_cpu)
    models = on_cpu.float(), on_card.to(DEVICE)
    return tuple(quantize_int8(model) for model in models) if quantize else models


def tolerance(dtype: torch.dtype) -> float:
    """Of a relative difference: a few roundings of numbers, and in float32 of sums, too."""
    return 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps


@torch.inference_mode()
def last_logits(model: dl.Transformer, tokens: torch.Tensor) -> torch.Tensor:
    hidden = model.hidden(tokens.to(model.norm.weight.device))
    return model.output(hidden[:, -1]).float().cpu()


def step_logits(model: dl.Transformer, compile: bool) -> torch.Tensor:
    """After a prompt and after each of eight tokens that follow it."""
    generator = Generator(model, compile, length=64)
    rows = [generator.read(TOKENS)]
    rows += [generator.read(torch.tensor([[token]])) for token in (7, 300, 2, 41, 41, 100, 19, 8)]
    return torch.stack(rows).cpu()


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("tokens", [TOKENS, LONG], ids=["11 tokens", "2,048 tokens"])
def test_logits_of_the_card_are_those_of_the_cpu(dtype, tokens):
    on_cpu, on_card = pair(dtype)
    assert relative_difference(last_logits(on_card, tokens), last_logits(on_cpu, tokens)) < tolerance(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_int8_logits_of_the_card_are_those_of_the_cpu(dtype):
    """The weights are made on the card, too: both must round alike."""
    on_cpu, on_card = pair(dtype, quantize=True)
    assert relative_difference(last_logits(on_card, TOKENS), last_logits(on_cpu, TOKENS)) < tolerance(dtype)


@pytest.mark.parametrize("quantize", [False, True], ids=["weights as they are", "int8"])
def test_the_compiled_step_gives_the_logits_of_the_eager_one(quantize):
    on_cpu, on_card = pair(HALF, quantize)
    exact = step_logits(on_cpu, compile=False)
    for compile in (False, True):
        assert relative_difference(step_logits(on_card, compile), exact) < tolerance(HALF)


def test_compiled_tokens_are_the_eager_ones():
    _, model = pair(torch.float32)
    eager = list(dl.generate(model, TOKENS[0], 60))
    assert list(dl.generate(model, TOKENS[0], 60, compile=True)) == eager
    assert len(set(eager)) > 5


def test_a_graph_is_recorded_once_for_all_texts(monkeypatch):
    """Of one length of cache: a second recording would cost seconds, and its memory is never given back."""
    from torch._inductor.cudagraph_trees import CUDAGraphTreeManager

    recorded, record = [], CUDAGraphTreeManager.record_function

    def counted(manager, *given):
        recorded.append(given)
        return record(manager, *given)

    monkeypatch.setattr(CUDAGraphTreeManager, "record_function", counted)
    model = compile_model(pair(HALF)[1])
    generator, counts = Generator(model, compile=True, length=256), []
    for start in range(5):
        list(generator.generate(TOKENS[0, start:], 20))
        counts.append(len(recorded))
    for start in range(5):
        list(dl.generate(model, TOKENS[0, start:], 20))
        counts.append(len(recorded))
    assert counts[0] >= 1
    assert counts[:5] == counts[:1] * 5
    assert counts[5:] == counts[5:6] * 5  # their caches are others, kept from one text to the next


def test_a_long_prompt_takes_no_memory_for_the_scores_of_all_pairs():
    """A kernel that makes the whole matrix of scores would show, in float32 for each head, as 201 MB here."""
    _, model = pair(HALF)
    last_logits(model, LONG[:, :64])  # loads the libraries
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    last_logits(model, LONG)
    scores = model.config.n_heads * LONG.shape[1] ** 2 * 4
    assert torch.cuda.max_memory_allocated() - before < scores / 2


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_loading_holds_one_matrix_more_than_the_model(quantize):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = dl.load_model("tiny", DEVICE, HALF, quantize)
    largest = max(parameter.numel() for parameter in dl.Transformer(model.config).parameters())
    peak = torch.cuda.max_memory_allocated() - before
    assert peak < tensor_bytes(model) + 12 * largest + 2**20  # rounded, two copies in float32; small blocks


def test_a_wrong_token_leaves_the_card_usable():
    """Checked before the card sees it: a device-side assertion would end every later call."""
    _, model = pair(HALF)
    with pytest.raises(ValueError, match="outside the model's 0 to 319"):
        list(dl.generate(model, [5, 320]))
    assert len(list(dl.generate(model, [5, 319], 3))) == 3
