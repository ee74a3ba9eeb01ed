"""Each cause of a difference is named when a checkpoint is broken in just that way, and no other cause is."""

import dataclasses
import json
import re

import pytest
import torch
from conftest import randomize, shrink
from safetensors.torch import load_file, save_file

import decoding_llama3 as dl
from decoding_llama3.comparison import checkpoints
from decoding_llama3.comparison.checkpoints import compare_checkpoints
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.data import data_directory


@pytest.fixture(autouse=True)
def _one_thread(_deterministic):
    torch.set_num_threads(1)


@pytest.fixture
def pair(tmp_path):
    """Two folders with the same small model."""
    for name in "ab":
        save_huggingface(model(), tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def model(name: str = "llama3.1-8b", seed: int = 0, **changes) -> dl.Transformer:
    return randomize(dl.Transformer(dataclasses.replace(shrink(name), **changes)), seed)


def settings(folder, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def weights(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def names(found) -> list[str]:
    return [cause.name for cause in found.causes]


def test_equal(pair):
    found = compare_checkpoints(*pair)
    assert found.is_equal
    assert found.causes == []
    assert found.on_prompt.near.relative == found.on_prompt.far.relative == 0


def half_split_in_metas_order(tensors):
    """As a converter leaves them that forgets to permute: Meta's rows in Hugging Face's format."""
    for name, weight in tensors.items():
        if "q_proj" in name or "k_proj" in name:
            tensors[name] = (
                weight.view(-1, 2, 8, weight.shape[1]).transpose(1, 2).reshape(weight.shape).contiguous()
            )


def split_once_more(tensors):
    for name, weight in tensors.items():
        if "q_proj" in name or "k_proj" in name:
            tensors[name] = (
                weight.view(-1, 8, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape).contiguous()
            )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (half_split_in_metas_order, "B's are A's interleaved once more"),
        (split_once_more, "B's are A's split into halves once more"),
    ],
)
def test_the_layout_of_pairs(pair, change, words):
    weights(pair[1], change)
    found = compare_checkpoints(*pair)
    assert names(found) == ["pair layout"]
    assert words in found.causes[0].text
    assert found.first.name == "layers.0.attention.wq.weight"
    assert "wq.weight and 3 more" in found.causes[0].text
    assert found.on_prompt.near.relative > 1e-2
    assert found.on_prompt.turned.relative < 1e-5, "with the rows put back A computes what B computes"


def meta(folder, weights: dl.Transformer, reorder=lambda weight: weight, **changes) -> None:
    """A model in Meta's layout, the rows of wq and wk as `reorder` leaves them."""
    folder.mkdir()
    keys = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "norm_eps", "rope_theta")
    params = {key: getattr(weights.config, key) for key in keys} | {"multiple_of": 176, "ffn_dim_multiplier": 0.1}
    (folder / "params.json").write_text(json.dumps(params | changes))
    theirs, tensors = {"w_gate": "w1", "w_down": "w2", "w_up": "w3"}, {}
    for name, weight in weights.state_dict().items():
        is_rotated = name.endswith(("wq.weight", "wk.weight"))
        name = ".".join(theirs.get(part, part) for part in name.split("."))
        tensors[name] = reorder(weight) if is_rotated else weight
    torch.save(tensors, folder / "consolidated.00.pth")


def test_two_formats_of_one_model_are_equal_but_for_what_metas_layout_does_not_state(tmp_path):
    save_huggingface(model("llama3-8b"), tmp_path / "a")
    meta(tmp_path / "b", model("llama3-8b"))
    found = compare_checkpoints(tmp_path / "a", tmp_path / "b")
    assert found.is_equal


def test_the_layout_of_pairs_between_two_formats(tmp_path):
    """The rows of a Hugging Face file, copied as they are into Meta's layout, which is what B holds."""
    save_huggingface(model("llama3-8b"), tmp_path / "a")

    def half_split(weight):
        return weight.view(-1, 8, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

    meta(tmp_path / "b", model("llama3-8b"), half_split)
    found = compare_checkpoints(tmp_path / "a", tmp_path / "b")
    assert names(found) == ["pair layout"]
    assert "B's file holds Hugging Face's half-split rows where its format has Meta's" in found.causes[0].text


SCALING = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("changes", "cause", "words"),
    [
        ({"rope_theta": 10_000.0}, "theta", "500000 in A, 10000 in B"),
        ({"rope_scaling": None}, "scaling of RoPE", "factor=8.0"),
        ({"rope_scaling": SCALING}, "scaling of RoPE", "factor=32.0"),
        ({"rms_norm_eps": 1e-3}, "norm eps", "1e-05 in A, 0.001 in B"),
    ],
)
def test_a_setting(pair, changes, cause, words):
    settings(pair[1], **changes)
    found = compare_checkpoints(*pair)
    assert names(found) == [cause]
    assert words in found.causes[0].text
    assert found.first is None
    assert not found.is_equal
    assert found.on_prompt.far.relative > 1e-4
    assert found.on_prompt.turned.relative == 0, "with B's setting A computes what B computes"


def test_the_length_of_the_context_changes_no_number(pair):
    settings(pair[1], max_position_embeddings=4096)
    found = compare_checkpoints(*pair)
    assert names(found) == ["context"]
    assert found.on_prompt.far.relative == 0


def test_tying(tmp_path):
    """A has its embedding as output; B a copy of it in a matrix of its own."""
    tied = model(tie_embeddings=True)
    save_huggingface(tied, tmp_path / "a")
    save_huggingface(tied, tmp_path / "b")
    settings(tmp_path / "b", tie_word_embeddings=False)
    weights(tmp_path / "b", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    found = compare_checkpoints(tmp_path / "a", tmp_path / "b")
    assert names(found) == ["tying"]
    assert "B has a copy of its embedding" in found.causes[0].text
    assert found.on_prompt.near.relative == 0
    weights(tmp_path / "b", lambda t: t.update({"lm_head.weight": torch.randn(320, 192)}))
    found = compare_checkpoints(tmp_path / "b", tmp_path / "a")
    assert names(found) == ["other weights", "tying"]
    assert found.first.name == "output.weight"
    assert "A has a matrix of its own" in found.causes[1].text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding(pair, dtype, tmp_path):
    save_huggingface(model(), tmp_path / "narrow", dtype)
    for order in (1, -1):
        found = compare_checkpoints(*(pair[0], tmp_path / "narrow")[::order])
        assert names(found) == ["rounding"]
        assert f"rounded to {str(dtype).removeprefix('torch.')}" in found.causes[0].text
        assert 0 < found.on_prompt.near.relative < 0.05


def test_the_same_values_in_another_dtype_are_equal(tmp_path):
    rounded = model().to(torch.bfloat16)
    save_huggingface(rounded, tmp_path / "a", torch.bfloat16)
    save_huggingface(rounded, tmp_path / "b", torch.float32)
    assert compare_checkpoints(tmp_path / "a", tmp_path / "b").is_equal


def test_a_vocabulary_grown(tmp_path):
    save_huggingface(model(), tmp_path / "a")
    save_huggingface(model(), tmp_path / "b")

    def grow(tensors):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = torch.cat((tensors[name], torch.randn(8, 192)))

    weights(tmp_path / "b", grow)
    settings(tmp_path / "b", vocab_size=328)
    found = compare_checkpoints(tmp_path / "a", tmp_path / "b")
    assert names(found) == ["vocabulary grown"]
    assert "320 rows in A, 328 in B" in found.causes[0].text
    assert found.first.name == "tok_embeddings.weight"
    assert found.on_prompt.near.relative < 1e-6


def test_heads_cut_otherwise(tmp_path):
    """Meta's layout, where the rows do not depend on it: half as many heads, twice as wide."""
    weights = model("llama3-8b", n_kv_heads=4)
    for name, n_heads, n_kv_heads in (("a", 12, 4), ("b", 6, 2)):
        meta(tmp_path / name, weights, n_heads=n_heads, n_kv_heads=n_kv_heads)
    found = compare_checkpoints(tmp_path / "a", tmp_path / "b")
    assert names(found) == ["heads"]
    assert "[12, 4, 16] in A, [6, 2, 32] in B" in found.causes[0].text
    assert found.on_prompt.near.relative > 1e-2
    assert found.on_prompt.turned.relative == 0


def test_close_weights_in_another_order(pair):
    def quantise(tensors):
        half_split_in_metas_order(tensors)
        for name, weight in tensors.items():
            step = weight.abs().max() / 16
            tensors[name] = (weight / step).round() * step if weight.dim() == 2 else weight

    weights(pair[1], quantise)
    found = compare_checkpoints(*pair)
    assert names(found) == ["pair layout", "close weights"]
    assert 0.01 < float(re.search(r"up to (\S+) apart", found.causes[1].text)[1]) < 0.2
    assert found.on_prompt.turned.relative < 0.5 < found.on_prompt.far.relative


def test_several_causes_at_once_are_all_named(pair, tmp_path):
    """Rounded, in another order, with another theta and eps."""
    narrow = model()
    save_huggingface(narrow, tmp_path / "narrow", torch.bfloat16)
    weights(tmp_path / "narrow", half_split_in_metas_order)
    settings(tmp_path / "narrow", rope_theta=10_000.0, rms_norm_eps=1e-3)
    found = compare_checkpoints(pair[0], tmp_path / "narrow")
    assert names(found) == ["pair layout", "rounding", "theta", "norm eps"]
    assert found.on_prompt.turned.relative < 0.05 < found.on_prompt.far.relative


def test_one_tensor_that_differs_is_named(pair):
    weights(pair[1], lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].neg_())
    found = compare_checkpoints(*pair)
    assert found.first.name == "layers.1.feed_forward.w_up.weight"
    assert found.first.largest > 0.1
    assert names(found) == ["other weights"]
    assert "layers.1.feed_forward.w_up.weight, for which no cause is known" in found.causes[0].text


def test_small_changes_everywhere_are_told_from_other_weights(pair):
    def train(tensors):
        for weight in tensors.values():
            weight += 0.01 * weight.std() * torch.randn(weight.shape) if weight.dim() == 2 else 0

    weights(pair[1], train)
    found = compare_checkpoints(*pair)
    assert names(found) == ["close weights"]


def test_an_unrelated_random_model_gets_no_cause(pair, tmp_path):
    """The control: other weights, and other settings besides."""
    other = model(seed=1, rope_theta=1e4, norm_eps=1e-3, rope_scaling=None, vocab_size=328, tie_embeddings=True)
    save_huggingface(other, tmp_path / "other", torch.bfloat16)
    weights(tmp_path / "other", half_split_in_metas_order)
    found = compare_checkpoints(pair[0], tmp_path / "other")
    assert not found.related
    assert found.causes == []
    assert found.on_prompt is None
    assert found.first.name == "tok_embeddings.weight"


def test_an_unrelated_model_with_the_same_norms_gets_no_cause(pair):
    """Norms are ones in every new model."""
    for folder, seed in zip(pair, (0, 1), strict=True):
        generator = torch.Generator().manual_seed(seed)

        def new(tensors, generator=generator):
            for name, weight in tensors.items():
                tensors[name] = (
                    torch.randn(weight.shape, generator=generator) if weight.dim() == 2 else weight * 0 + 1
                )

        weights(folder, new)
    found = compare_checkpoints(*pair)
    assert not found.related
    assert found.causes == []


def test_other_shapes_get_no_cause(pair, tmp_path):
    save_huggingface(model(dim=96, n_layers=3), tmp_path / "narrow")
    found = compare_checkpoints(pair[0], tmp_path / "narrow")
    assert not found.related
    assert {match.kind for match in found.tensors} == {"other", "missing"}


def test_without_memory_for_it_no_prompt_is_run(pair, monkeypatch):
    monkeypatch.setattr(checkpoints, "free_bytes", lambda device: 0)
    found = compare_checkpoints(*pair)
    assert found.is_equal
    assert found.on_prompt is None


def test_the_loss_tells_which_layout_is_right(tmp_path):
    """Of tiny, a trained model, and a copy with the rows of its q and k in the wrong order."""
    tiny = data_directory() / "tiny-llama3"
    save_huggingface(dl.load_model("tiny", dtype=torch.float32), tmp_path / "copy")
    n = dl.LlamaConfig.from_preset("tiny").head_dim // 2

    def interleave(tensors):
        for name, w in tensors.items():
            if "q_proj" in name or "k_proj" in name:
                tensors[name] = w.view(-1, 2, n, w.shape[1]).transpose(1, 2).reshape(w.shape).contiguous()

    weights(tmp_path / "copy", interleave)
    found = compare_checkpoints(tiny, tmp_path / "copy")
    assert [name for name in names(found) if name != "rounding"] == ["pair layout"]
    right, wrong = found.on_prompt.losses
    assert wrong > right + 0.5
