"""`load_model`: its arguments, the memory it takes, and the model that it gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import randomize, shrink
from safetensors.torch import load_file, save_file

import decoding_llama3 as dl
from decoding_llama3.inference import compile, memory
from decoding_llama3.inference.checkpoint import stored
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.devices import choose_dtype
from decoding_llama3.inference.quantize import Int8Embedding, quantize_int8

TOKENS = torch.arange(2 * 23).view(2, 23)


def load(path, **options) -> dl.Transformer:
    return dl.load_model(path, dtype=torch.float32, **options)


@pytest.fixture
def huggingface(model, tmp_path):
    save_huggingface(model, tmp_path)
    return tmp_path


def test_without_dtype_the_choice_is_printed(huggingface, capsys):
    model = dl.load_model(huggingface)
    assert capsys.readouterr().out == f"{huggingface}: float32 on cpu\n"
    assert model.norm.weight.dtype == torch.float32
    assert dl.load_model(huggingface, dtype=torch.bfloat16).norm.weight.dtype == torch.bfloat16
    assert capsys.readouterr().out == ""


def test_an_unknown_quantisation_is_told(huggingface):
    with pytest.raises(ValueError, match="quantize is None or 'int8', found 'int3'"):
        load(huggingface, quantize="int3")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of itself
def test_compiled_and_eager_choose_the_same_tokens(huggingface):
    prompt = TOKENS[0].tolist()
    eager = list(dl.generate(load(huggingface), prompt, max_new_tokens=20))
    model = load(huggingface, compile=True)
    assert isinstance(model, compile.CompiledTransformer)
    assert list(dl.generate(model, prompt, max_new_tokens=20)) == eager


def test_without_a_compiler_the_model_stays_eager_and_says_so(huggingface, monkeypatch, capsys):
    monkeypatch.setattr(compile, "find_compiler", lambda: None)
    model = load(huggingface, compile=True)
    assert "no C++ compiler found" in capsys.readouterr().out
    assert type(model) is dl.Transformer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])
def test_int8_made_on_the_way_is_int8_made_afterwards(preset, dtype, tmp_path):
    """Bit for bit: rows quantised before they are rounded to bfloat16 would differ."""
    save_huggingface(randomize(dl.Transformer(shrink(preset))), tmp_path)
    found = dl.load_model(tmp_path, dtype=dtype, quantize="int8")
    expected = quantize_int8(dl.load_model(tmp_path, dtype=dtype)).state_dict()
    assert found.state_dict().keys() == expected.keys()
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


def test_tied_weights_are_one_in_int8_too(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3.2-1b"))), tmp_path)
    model = load(tmp_path, quantize="int8")
    assert isinstance(model.tok_embeddings, Int8Embedding)
    assert model.output.weight is model.tok_embeddings.weight
    assert model.output.scale is model.tok_embeddings.scale


PEAK = """
import sys, torch, decoding_llama3 as dl
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
before = peak()
model = dl.load_model(sys.argv[1], dtype=torch.float32, quantize=sys.argv[2] or None)
for weight in model.state_dict().values():
    weight.sum()  # so that mapped pages count
print(peak() - before, sum(weight.nbytes for weight in model.state_dict().values()))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> dl.Transformer:
    shape = {"dim": 512, "n_layers": 12, "n_heads": 8, "n_kv_heads": 2, "hidden_dim": 2048, "vocab_size": 512}
    return randomize(dl.Transformer(dl.LlamaConfig(**shape)))


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells a process's peak memory")
@pytest.mark.parametrize("stored_as", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantize", ["", "int8"])
def test_a_model_is_never_in_memory_twice(large, stored_as, quantize, tmp_path):
    """A new process that hands freed memory back at once; 40 MB are for what torch loads as it goes."""
    save_huggingface(large, tmp_path, stored_as)
    settings = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", PEAK, str(tmp_path), quantize]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | settings)
    peak, weights = map(int, run.stdout.split())
    assert weights > 45e6
    assert peak < 1.1 * weights + 40e6


def test_loading_does_not_load_torchs_compiler():
    """The random weights of an empty model would, on the device "meta": a second, for nothing."""
    script = "import sys, decoding_llama3 as dl; dl.load_model('tiny'); print('torch._dynamo' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert run.stdout.split()[-1] == "False"


def test_weights_that_fit_as_they_are_stay_in_the_file(huggingface, monkeypatch):
    """Reordered ones are copied, so the pages they were copied from need not stay in memory."""
    read, kept = stored.MappedFile.read, {}

    def spy(file, name, keep=False):
        tensor = read(file, name, keep)
        if keep:
            kept[name] = tensor.data_ptr()
        return tensor

    monkeypatch.setattr(stored.MappedFile, "read", spy)
    state = load(huggingface).state_dict()
    assert set(kept.values()) == {
        w.data_ptr() for n, w in state.items() if not n.endswith(("wq.weight", "wk.weight"))
    }
    assert len(kept) == len(state) - 2 * 2


def test_a_checkpoint_may_be_replaced_while_its_model_is_in_use(model, huggingface):
    used = load(huggingface)
    expected = model(TOKENS)
    save_huggingface(randomize(dl.Transformer(model.config), seed=1), huggingface)
    assert torch.equal(used(TOKENS), expected)
    assert not torch.equal(load(huggingface)(TOKENS), expected)
    assert sorted(path.name for path in huggingface.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
@pytest.mark.parametrize("use", [choose_dtype, lambda device: dl.load_model("tiny", device, torch.float32)])
def test_a_device_that_is_not_there_is_told(device, use):
    with pytest.raises(ValueError, match=rf"device '{device}' cannot be used here \(.*\): use one of cpu"):
        use(device)


@pytest.mark.parametrize("device", ["hpu", "meta", "mkldnn", "", "cpu:x", torch.device("meta"), "\x1b[31mred"])
def test_a_device_on_which_no_model_runs_is_refused_with_those_that_there_are(device):
    """torch would say that a module is missing, or an internal assertion; and "meta" has shapes alone."""
    with pytest.raises(ValueError, match=r"^device '.*' cannot be used here \(.*\): use one of cpu") as caught:
        dl.load_model("tiny", device, torch.float32)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("device", [None, 5, 0.5, ["cpu"], b"cpu"])
def test_what_is_no_device_is_refused_by_its_type(device):
    with pytest.raises(
        TypeError, match=r"device is a string such as 'cpu' or 'cuda:0', or a torch\.device, found"
    ):
        dl.load_model("tiny", device, torch.float32)


def test_a_loaded_model_is_to_be_run_and_can_be_trained(huggingface):
    model = load(huggingface)
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not model.training
    model.requires_grad_()
    model(TOKENS).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_dtype_that_is_none_is_told():
    with pytest.raises(TypeError, match=r"dtype is a torch\.dtype such as torch\.bfloat16, found 'bfloat16'"):
        dl.load_model("tiny", dtype="bfloat16")
    with pytest.raises(ValueError, match=r"found torch\.int8: for one byte a weight, use quantize='int8'"):
        dl.load_model("tiny", dtype=torch.int8)


def test_memory_is_asked_for_before_a_weight_is_read(huggingface, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(stored.MappedFile, "read", lambda *_, **__: pytest.fail("a weight was read"))
    with pytest.raises(ValueError, match="the model needs"):
        load(huggingface)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tied_model_may_hold_its_output_too_if_it_is_the_embedding(tmp_path, dtype):
    """Some exporters write both; equal they are one, whatever their dtypes, and different they are refused."""
    model = randomize(dl.Transformer(shrink("llama3.2-1b"))).bfloat16().float()
    save_huggingface(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    both = weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone().to(dtype)}
    save_file(both, tmp_path / "model.safetensors")
    again = load(tmp_path)
    assert again.output.weight is again.tok_embeddings.weight
    assert torch.equal(again(TOKENS), model(TOKENS))
    both["lm_head.weight"] = both["lm_head.weight"] + 1
    save_file(both, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"embedding and output are tied, but holds a 'lm_head\.weight'"):
        load(tmp_path)
