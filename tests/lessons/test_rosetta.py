"""The table of names is proven by the files themselves: a checkpoint in each house's names gives one model."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.rows import split_pairs
from decoding_llama3.lessons import rosetta

WEIGHTS = [name for name in rosetta.NAMES if name.kind == "weight"]


def translated(state: dict[str, torch.Tensor], house: str) -> dict[str, torch.Tensor]:
    """Our state in another house's names, by the table alone."""
    table = {name.ours: getattr(name, house) for name in WEIGHTS}
    found = {}
    for name, weight in state.items():
        block = re.search(r"layers\.(\d+)\.", name)
        pattern = re.sub(r"layers\.\d+\.", "layers.{i}.", name)
        found[table[pattern].format(i=block and block[1])] = weight
    return found


def test_every_weight_of_a_model_stands_in_the_table(model):
    ours = {re.sub(r"layers\.\d+\.", "layers.{i}.", name) for name in model.state_dict()}
    assert ours == {name.ours for name in WEIGHTS}


def test_huggingfaces_names_are_those_that_its_library_reads(model, tmp_path):
    save_huggingface(model, tmp_path)
    theirs, ours = load_file(tmp_path / "model.safetensors"), translated(model.state_dict(), "huggingface")
    assert theirs.keys() == ours.keys()
    for name, weight in ours.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = split_pairs(weight, model.config.head_dim)
        torch.testing.assert_close(theirs[name], weight, rtol=0, atol=0)


def test_a_round_trip_through_the_table_gives_the_same_logits(model, tmp_path):
    save_huggingface(model, tmp_path)
    state = translated(model.state_dict(), "huggingface")
    for name in state:
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            state[name] = split_pairs(state[name], model.config.head_dim)
    save_file({name: weight.contiguous() for name, weight in state.items()}, tmp_path / "model.safetensors")
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    torch.testing.assert_close(dl.load_model(tmp_path, dtype=torch.float32)(tokens), model(tokens))


def test_metas_names_load_as_meta_writes_them(model, tmp_path):
    torch.save(translated(model.state_dict(), "meta"), tmp_path / "consolidated.00.pth")
    c = model.config
    names = {name.meta: getattr(c, name.ours) for name in rosetta.NAMES if name.kind == "setting"}
    multiplier = c.hidden_dim / (8 * c.dim // 3)
    (tmp_path / "params.json").write_text(
        json.dumps(names | {"multiple_of": c.hidden_dim, "ffn_dim_multiplier": multiplier})
    )
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    torch.testing.assert_close(dl.load_model(tmp_path, dtype=torch.float32)(tokens), model(tokens))


@pytest.mark.parametrize("name", rosetta.NAMES, ids=lambda name: name.ours)
def test_the_source_line_is_where_our_name_is_set(name):
    file, line = rosetta.source_line(name).split(":")
    text = (rosetta.inspect.getsourcefile(name.owner).rpartition("/")[0] + "/" + file).replace("//", "/")
    with open(text, encoding="utf-8") as source:
        found = source.readlines()[int(line) - 1]
    word = name.ours.removesuffix(".weight").rpartition(".")[2]
    assert ("weight" if name.ours == "norm.weight" else word) in found


def test_a_part_shows_its_own_names():
    assert {row[0] for row in rosetta.rows("rope")} == {"rope_theta"}
    assert len(list(rosetta.rows())) == len(rosetta.NAMES)
