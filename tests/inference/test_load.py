"""Checkpoints of both kinds, whole and in parts; and every way they can be wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import randomize, shrink
from safetensors.torch import load_file, save_file
from torch import Tensor

import decoding_llama3 as dl
from decoding_llama3.inference import compile, memory
from decoding_llama3.inference import load as loading
from decoding_llama3.inference.devices import choose_dtype
from decoding_llama3.inference.load import read_config, save_huggingface
from decoding_llama3.inference.quantize import Int8Embedding, quantize_int8

PARAMS = {
    "dim": 192,
    "n_layers": 2,
    "n_heads": 12,
    "n_kv_heads": 3,
    "vocab_size": 320,
    "multiple_of": 16,
    "ffn_dim_multiplier": 0.3,
    "norm_eps": 1e-5,
    "rope_theta": 500_000.0,
}
META_NAMES = {"w_gate": "w1", "w_down": "w2", "w_up": "w3"}
TOKENS = torch.arange(2 * 23).view(2, 23)


def load(path, **options) -> dl.Transformer:
    return dl.load_model(path, dtype=torch.float32, **options)


@pytest.fixture
def huggingface(model, tmp_path):
    save_huggingface(model, tmp_path)
    return tmp_path


@pytest.fixture
def meta_model() -> dl.Transformer:
    return randomize(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(PARAMS))))


def save_meta(model: dl.Transformer, path, parts: int = 1, embedding_axis: int = 0, params: dict | None = None):
    """As Meta's trainer leaves it: every matrix cut along the axis that its parallel layer splits."""
    (path / "params.json").write_text(json.dumps(params or PARAMS))
    axes = {"wq": 0, "wk": 0, "wv": 0, "w_gate": 0, "w_up": 0, "output": 0, "wo": 1, "w_down": 1}
    axes["tok_embeddings"] = embedding_axis  # 1 in Llama 2, 0 in Llama 3
    for i in range(parts):
        part = {}
        for name, weight in model.state_dict().items():
            stem = name.split(".")[-2]
            slices = weight.chunk(parts, dim=axes[stem]) if stem in axes else [weight] * parts
            part[name.replace(stem, META_NAMES.get(stem, stem))] = slices[i].clone()
        part["rope.freqs"] = torch.ones(8)  # Meta's files carry the table along
        torch.save(part, path / f"consolidated.{i:02d}.pth")


def edit_weights(path, change) -> None:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors")


def edit_json(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_saved_is_what_loads(model, huggingface):
    assert load(huggingface).config == model.config
    assert torch.equal(load(huggingface)(TOKENS), model(TOKENS))


@pytest.mark.parametrize(("parts", "embedding_axis"), [(1, 0), (2, 0), (2, 1), (4, 1)])
def test_metas_parts_are_joined_along_the_axis_they_were_cut(meta_model, tmp_path, parts, embedding_axis):
    save_meta(meta_model, tmp_path, parts, embedding_axis)
    assert torch.equal(load(tmp_path)(TOKENS), meta_model(TOKENS))


def test_a_llama_2_file_without_its_vocabulary_size(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2, params=PARAMS | {"vocab_size": -1})
    assert load(tmp_path).config.vocab_size == read_config(tmp_path).vocab_size == 320


def test_the_layouts_of_both_kinds_differ_in_queries_and_keys_alone(meta_model, tmp_path):
    save_huggingface(meta_model, tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = meta_model.state_dict()
    for layer in range(2):
        for mine, name in (("wq", "q_proj"), ("wk", "k_proj"), ("wv", "v_proj"), ("wo", "o_proj")):
            same = torch.equal(
                ours[f"layers.{layer}.attention.{mine}.weight"],
                theirs[f"model.layers.{layer}.self_attn.{name}.weight"],
            )
            assert same == (mine in ("wv", "wo"))


def test_without_dtype_the_choice_is_printed(huggingface, capsys):
    model = dl.load_model(huggingface)
    assert capsys.readouterr().out == f"{huggingface}: float32 on cpu\n"
    assert model.norm.weight.dtype == torch.float32
    assert dl.load_model(huggingface, dtype=torch.bfloat16).norm.weight.dtype == torch.bfloat16
    assert capsys.readouterr().out == ""


def test_tied_weights_stay_one_tensor(tmp_path):
    """load_state_dict(assign=True) alone makes two parameters of one tensor, and the model grows on `.to()`."""
    config = shrink("llama3.2-1b")
    save_huggingface(randomize(dl.Transformer(config)), tmp_path)
    model = load(tmp_path)
    assert model.output.weight is model.tok_embeddings.weight
    assert sum(p.numel() for p in model.parameters()) == config.n_params
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


def test_a_tied_checkpoint_may_repeat_its_embedding_but_not_contradict_it(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3.2-1b"))), tmp_path)
    edit_weights(tmp_path, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    load(tmp_path)
    edit_weights(tmp_path, lambda w: w["lm_head.weight"].mul_(2))
    with pytest.raises(ValueError, match=r"holds a lm_head\.weight that differs from the embedding"):
        load(tmp_path)


def drop_norm(weights: dict[str, Tensor]) -> None:
    del weights["model.norm.weight"]


def add_bias(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(192)


def cut_a_row(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"][:-1].clone()


def store_integers(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.int8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_norm, r"lacks model\.norm\.weight: are configuration"),
        (add_bias, r"has, beyond .*, model\.layers\.0\.self_attn\.q_proj\.bias"),
        (cut_a_row, r"lm_head\.weight of shape \(319, 192\), but its configuration asks for \(320, 192\)"),
        (store_integers, r"lm_head\.weight as I8, and quantised weights are not supported"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_weights_are_refused(huggingface, change, words):
    edit_weights(huggingface, change)
    with pytest.raises(ValueError, match=words):
        load(huggingface)


def test_a_configuration_of_another_model_is_refused(huggingface):
    edit_json(huggingface / "config.json", num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"lacks model\.layers\.2.* and 8 more"):
        load(huggingface)


def test_a_setting_we_do_not_implement_is_refused(huggingface):
    edit_json(huggingface / "config.json", attention_bias=True)
    with pytest.raises(ValueError, match=r"config\.json sets attention_bias to true"):
        load(huggingface)


def test_a_missing_shard_is_named(huggingface):
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (huggingface / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"lacks model-00002-of-00002\.safetensors"):
        load(huggingface)


@pytest.mark.parametrize("index", ["not json", "{}"])
def test_a_damaged_index_is_named(huggingface, index):
    (huggingface / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
        load(huggingface)


def test_a_download_cut_short_is_named(huggingface):
    file = huggingface / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .* download it again"):
        load(huggingface)


def test_a_gap_among_metas_parts_is_told(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=4)
    (tmp_path / "consolidated.02.pth").unlink()
    with pytest.raises(ValueError, match=r"without a gap, found consolidated\.00\.pth, .*01\.pth, .*03\.pth"):
        load(tmp_path)


def test_a_missing_last_part_is_told_by_the_shapes(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2)
    (tmp_path / "consolidated.01.pth").unlink()
    with pytest.raises(ValueError, match="all parts there"):
        load(tmp_path)


def test_parts_of_two_checkpoints_are_told(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2)
    torch.save({"norm.weight": torch.ones(192)}, tmp_path / "consolidated.01.pth")
    with pytest.raises(ValueError, match="are they parts of one checkpoint"):
        load(tmp_path)


class Trap:
    """Unpickled, it makes a file; a pickle can run any command."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pth_file_never_runs_code(meta_model, tmp_path):
    save_meta(meta_model, tmp_path)
    torch.save({"norm.weight": Trap(tmp_path / "sprung")}, tmp_path / "consolidated.00.pth")
    with pytest.raises(ValueError, match="cannot be read as plain weights"):
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_pth_file_of_something_else_is_told(meta_model, tmp_path):
    save_meta(meta_model, tmp_path)
    torch.save({"step": 3}, tmp_path / "consolidated.00.pth")
    with pytest.raises(ValueError, match="a dictionary of tensors by name"):
        load(tmp_path)


def test_a_place_without_a_checkpoint_is_told(tmp_path):
    with pytest.raises(ValueError, match="no directory"):
        dl.load_model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"neither config\.json .* nor params\.json"):
        dl.load_model(tmp_path)
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    with pytest.raises(ValueError, match=r"should hold consolidated\.00\.pth.* found none"):
        dl.load_model(tmp_path, dtype=torch.float32)


def test_an_unknown_quantisation_is_told(huggingface):
    with pytest.raises(ValueError, match="quantize is None or 'int8', found 'int3'"):
        load(huggingface, quantize="int3")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of itself
def test_compiled_and_eager_choose_the_same_tokens(huggingface):
    prompt = TOKENS[0].tolist()
    eager = list(dl.generate(load(huggingface), prompt, max_new_tokens=20))
    model = load(huggingface, compile=True)
    assert model.decode_step is not None
    assert list(dl.generate(model, prompt, max_new_tokens=20)) == eager


def test_without_a_compiler_the_model_stays_eager_and_says_so(huggingface, monkeypatch, capsys):
    monkeypatch.setattr(compile, "find_compiler", lambda: None)
    model = load(huggingface, compile=True)
    assert "no C++ compiler found" in capsys.readouterr().out
    assert not hasattr(model, "decode_step")


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


def test_metas_parts_are_quantised_on_the_way_too(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2)
    assert torch.equal(load(tmp_path, quantize="int8")(TOKENS), quantize_int8(meta_model)(TOKENS))


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
    read, kept = loading._MappedFile.read, {}

    def spy(file, name, keep=False):
        tensor = read(file, name, keep)
        if keep:
            kept[name] = tensor.data_ptr()
        return tensor

    monkeypatch.setattr(loading._MappedFile, "read", spy)
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


def test_a_file_cut_short_while_it_is_read_leaves_nothing(huggingface, monkeypatch):
    map_file, calls = loading._map_safetensors, []

    def map_then_cut(path):
        calls.append(path)
        if len(calls) == 5:
            os.truncate(path, path.stat().st_size // 2)
        return map_file(path)

    monkeypatch.setattr(loading, "_map_safetensors", map_then_cut)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .* download it again"):
        dl.load_model(huggingface, dtype=torch.bfloat16)
    assert len(calls) == 5


def test_a_pth_file_of_integers_is_told(meta_model, tmp_path):
    save_meta(meta_model, tmp_path)
    part = torch.load(tmp_path / "consolidated.00.pth")
    torch.save(part | {"norm.weight": torch.ones(192, dtype=torch.int8)}, tmp_path / "consolidated.00.pth")
    with pytest.raises(ValueError, match=r"norm\.weight as torch\.int8, and quantised weights"):
        load(tmp_path)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
@pytest.mark.parametrize("use", [choose_dtype, lambda device: dl.load_model("tiny", device, torch.float32)])
def test_a_device_that_is_not_there_is_told(device, use):
    with pytest.raises(ValueError, match=rf"device '{device}' cannot be used here \(.*\): use one of cpu"):
        use(device)


def test_a_dtype_that_is_none_is_told():
    with pytest.raises(TypeError, match=r"dtype is a torch\.dtype such as torch\.bfloat16, found 'bfloat16'"):
        dl.load_model("tiny", dtype="bfloat16")
    with pytest.raises(ValueError, match=r"found torch\.int8: for one byte a weight, use quantize='int8'"):
        dl.load_model("tiny", dtype=torch.int8)


def test_memory_is_asked_for_before_a_weight_is_read(huggingface, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(loading._MappedFile, "read", lambda *_, **__: pytest.fail("a weight was read"))
    with pytest.raises(ValueError, match="the model needs"):
        load(huggingface)
