"""The ablation lab: each variant computes what its name says, pairs are fair, nothing runs twice."""

import csv
import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from conftest import randomize
from typer.testing import CliRunner

from decoding_llama3.cli.commands import app
from decoding_llama3.experiments import ablation
from decoding_llama3.experiments.ablation import (
    GROUPS,
    LossPoint,
    Run,
    Settings,
    Text,
    Variant,
    build_variant,
    compare,
    statistics,
    store,
)
from decoding_llama3.experiments.ablation import lab as lab_file
from decoding_llama3.experiments.ablation import run as run_file
from decoding_llama3.experiments.ablation import text as text_file
from decoding_llama3.experiments.ablation.parts import sinusoidal_table
from decoding_llama3.inference.data import data_directory
from decoding_llama3.lessons.figures.ablation import draw_curves, spread
from decoding_llama3.lessons.style import use_style
from decoding_llama3.rope import apply_rope, rope_frequencies, rope_rotation

SMALL = Settings(dim=24, n_layers=2, n_heads=4, hidden_dim=10, seq_len=7, batch=3, steps=4, warmup=2, eval_every=2)
VOCABULARY = 31
VARIANTS = [(group, name) for group, names in GROUPS.items() for name in names]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # matrices this small are no work for two


def make(settings: Settings = SMALL, seed: int = 1, **switches):
    return build_variant(Variant(**switches), seed, VOCABULARY, settings)


def inputs(model, batch: int = 2, seq: int = 7):
    """What a block is given: vectors, positions, rotation."""
    positions = torch.arange(seq)
    rotation = rope_rotation(rope_frequencies(model.config.head_dim, model.config.rope_theta), positions)
    return torch.randn(batch, seq, model.config.dim), positions, rotation


def rms_norm(x, norm):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight


def test_every_group_starts_with_llama_3_and_turns_one_switch():
    assert list(GROUPS) == ["norm", "position", "kv_heads", "feed_forward", "tying", "scale", "gate"]
    llama = dataclasses.asdict(Variant())
    for variants in GROUPS.values():
        first, *others = (dataclasses.asdict(variant) for variant in variants.values())
        assert first == llama
        assert [len(other.items() - llama.items()) for other in others] == [1] * len(others)


@pytest.mark.parametrize("switch", GROUPS)
def test_an_unknown_value_is_told_with_the_choices(switch):
    with pytest.raises(ValueError, match=f"{switch} is one of .*, found 'LayerNrom'") as caught:
        Variant(**{switch: "LayerNrom"})
    assert all(name in str(caught.value) for name in GROUPS[switch])


@pytest.mark.parametrize(("group", "name"), VARIANTS)
def test_every_variant_runs_and_every_weight_learns(group, name):
    model = build_variant(GROUPS[group][name], 1, VOCABULARY, SMALL)
    tokens = torch.randint(VOCABULARY, (3, 7))
    ablation.mean_loss(model, tokens).backward()
    assert model(tokens).shape == (3, 7, VOCABULARY)
    assert all(weight.grad.abs().max() > 0 for weight in model.parameters())


def test_llama_3_is_the_package_s_own_model():
    """Were a part swapped in the baseline, all differences would be against something else."""
    assert {type(module).__module__.split(".")[0:2][-1] for module in make().modules()} <= {
        "transformer", "attention", "norm", "feed_forward", "nn"
    }  # fmt: skip


def test_layer_norm_subtracts_the_mean_and_has_a_bias():
    model = randomize(make(norm="LayerNorm"))
    norms = [module for name, module in model.named_modules() if name.split(".")[-1].endswith("norm")]
    assert len(norms) == 5
    for norm in norms:
        norm.bias.data.normal_()
        x = 3 + torch.randn(2, 7, 24)
        centred = x - x.mean(-1, keepdim=True)
        expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-5)


def test_without_norm_the_stream_is_the_plain_sum():
    model = randomize(make(norm="none"))
    x, *where = inputs(model)
    layer = model.layers[1]
    h = x + layer.attention(x, *where)
    torch.testing.assert_close(layer(x, *where), h + layer.feed_forward(h))
    torch.testing.assert_close(model.norm(x), x)


def test_post_norm_normalises_the_sum_and_nothing_else():
    model = randomize(make(norm="post-norm"))
    x, *where = inputs(model)
    for layer in model.layers:
        h = rms_norm(x + layer.attention(x, *where), layer.attention_norm)
        expected = rms_norm(h + layer.feed_forward(h), layer.ffn_norm)
        torch.testing.assert_close(layer(x, *where), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.norm(x), x)  # the last block ends in a norm: no second one


@pytest.mark.parametrize(
    ("position", "layers", "blind"),
    [
        ("none", 1, True),
        ("none", 2, False),  # the causal mask gives the order away to the second layer
        ("RoPE", 1, False),
        ("learned", 1, False),
        ("sinusoidal", 1, False),
    ],
)
def test_only_a_layer_without_positions_is_blind_to_the_order_before(position, layers, blind):
    model = randomize(make(dataclasses.replace(SMALL, n_layers=layers), position=position))
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [6, 3, 1, 5, 2, 4, 7]])  # the last one stays last
    one, other = model(tokens)[:, -1]
    assert ((one - other).abs().max() < 1e-5) == blind
    assert (one - other).abs().max() < 1e-5 or (one - other).abs().max() > 1e-3


def test_only_rope_turns_queries_and_keys():
    for position in GROUPS["position"]:
        attention = make(position=position).layers[0].attention
        x, positions, rotation = inputs(make())
        turned = not torch.equal(
            attention(x, positions, rotation), attention(x, positions, rotation.flip(0))
        )  # fmt: skip
        assert turned == (position == "RoPE"), position


def test_sinusoids_are_those_of_the_paper():
    table = sinusoidal_table(70, 24)
    for t, i in itertools.product((0, 1, 13, 69), range(12)):
        angle = t / 10_000 ** (2 * i / 24)
        assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_position_vectors_are_added_as_loud_as_the_tokens(position):
    model = make(position=position)
    tokens = torch.randint(VOCABULARY, (2, 6))
    added = model.tok_embeddings(tokens) - model.tok_embeddings.weight[tokens]
    torch.testing.assert_close(added[0], added[1])
    assert added.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.15)
    if position == "sinusoidal":
        torch.testing.assert_close(added[0], 0.02 * math.sqrt(2) * sinusoidal_table(6, 24))
    learned = "tok_embeddings.positions" in dict(model.named_parameters())
    assert learned == (position == "learned")


@pytest.mark.parametrize(("scale", "divisor"), [("none", 1.0), ("1/sqrt(head_dim)", math.sqrt(6))])
def test_scores_are_divided_or_not(scale, divisor):
    model = randomize(make(scale=scale))
    x, positions, rotation = inputs(model)
    attention = model.layers[0].attention
    q, k, v = (
        (x @ w.weight.T).unflatten(-1, (-1, 6)).transpose(1, 2) for w in (attention.wq, attention.wk, attention.wv)
    )
    q, k = apply_rope(q, rotation), apply_rope(k, rotation).repeat_interleave(2, 1)
    scores = q @ k.transpose(-2, -1) / divisor
    weights = scores.masked_fill(torch.ones(7, 7).triu(1).bool(), float("-inf")).softmax(-1)
    expected = (weights @ v.repeat_interleave(2, 1)).transpose(1, 2).flatten(-2) @ attention.wo.weight.T
    torch.testing.assert_close(attention(x, positions, rotation), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GROUPS["feed_forward"])
def test_each_feed_forward_is_its_formula(name):
    ff = randomize(make(feed_forward=name)).layers[0].feed_forward
    x = torch.randn(2, 7, 24)
    up = x @ ff.w_up.weight.T
    curves = {
        "SwiGLU": lambda x: x * x.sigmoid(),
        "ReLU": lambda x: x.clamp(min=0),
        "GELU": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
        "bilinear": lambda x: x,
        "GLU": lambda x: 1 / (1 + (-x).exp()),
    }
    curves |= {"ReGLU": curves["ReLU"], "GEGLU": curves["GELU"]}
    gated = name not in ("ReLU", "GELU")
    hidden = curves[name](x @ ff.w_gate.weight.T) * up if gated else curves[name](up)
    torch.testing.assert_close(ff(x), hidden @ ff.w_down.weight.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("gate", "curve"),
    [("silu", torch.nn.functional.silu), ("silu + 1", lambda z: z * z.sigmoid() + 1),
     ("sigmoid - 1/2", lambda z: torch.tanh(z / 2) / 2)],
)  # fmt: skip
def test_a_gate_is_swiglu_with_another_curve(gate, curve):
    ff = randomize(make(gate=gate)).layers[1].feed_forward
    x = torch.randn(2, 7, 24)
    hidden = curve(x @ ff.w_gate.weight.T) * (x @ ff.w_up.weight.T)
    torch.testing.assert_close(ff(x), hidden @ ff.w_down.weight.T, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="'silu \\+ 1' is one of SwiGLU, found it with ReLU"):
        Variant(feed_forward="ReLU", gate="silu + 1")


@pytest.mark.parametrize(("hidden_dim", "difference"), [(10, 0), (11, 2 * 24)])
def test_feed_forwards_have_equal_parameters(hidden_dim, difference):
    """An odd width cannot be halved: one row and one column less in each of the two layers."""
    settings = dataclasses.replace(SMALL, hidden_dim=hidden_dim)
    counts = {name: n_params(settings, feed_forward=name) for name in GROUPS["feed_forward"]}
    assert counts["bilinear"] == counts["GLU"] == counts["ReGLU"] == counts["GEGLU"] == counts["SwiGLU"]
    assert counts["ReLU"] == counts["GELU"] == counts["SwiGLU"] - difference
    assert len({n_params(Settings(), feed_forward=name) for name in GROUPS["feed_forward"]}) == 1


def n_params(settings: Settings, **switches) -> int:
    return sum(p.numel() for p in make(settings, **switches).parameters())


@pytest.mark.parametrize(("name", "heads"), [("MHA", 4), ("GQA", 2), ("MQA", 1)])
def test_key_value_heads_come_through_the_config(name, heads):
    model = make(kv_heads=name)
    assert model.config.n_kv_heads == heads
    assert model.layers[0].attention.wk.weight.shape == (6 * heads, 24)


@pytest.mark.parametrize("position", GROUPS["position"])
def test_tied_embeddings_are_one_parameter_whatever_else_is_swapped(position):
    tied, untied = (make(tying=tying, position=position) for tying in ("tied", "untied"))
    assert tied.output.weight is tied.tok_embeddings.weight
    assert not torch.equal(untied.output.weight, untied.tok_embeddings.weight)
    count = {tying: n_params(SMALL, tying=tying, position=position) for tying in ("tied", "untied")}
    assert count["untied"] - count["tied"] == VOCABULARY * 24


@pytest.mark.parametrize(("group", "name"), VARIANTS)
def test_weights_of_the_same_name_and_shape_are_the_same_at_the_start(group, name):
    llama, model = make(), build_variant(GROUPS[group][name], 1, VOCABULARY, SMALL)
    own = dict(model.named_parameters())
    alike = [n for n, weight in llama.named_parameters() if n in own and own[n].shape == weight.shape]
    assert len(alike) >= 10
    for n in alike:
        assert torch.equal(own[n], llama.get_parameter(n)), n
    assert not torch.equal(make(seed=2).output.weight, llama.output.weight)


@pytest.mark.parametrize(("group", "name"), VARIANTS)
def test_no_two_matrices_start_with_the_same_numbers(group, name):
    """Drawn from one stream twice, a variant's own matrices would repeat some that it shares with Llama 3."""
    model = build_variant(GROUPS[group][name], 1, 96, Settings())
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() == 2}
    stds = [0.01 if name.endswith(("wo.weight", "w_down.weight")) else 0.02 for name in weights]
    drawn = torch.cat([(weight / std).flatten() for weight, std in zip(weights.values(), stds, strict=True)])
    assert drawn.std().item() == pytest.approx(1, rel=0.01)
    repeated = 1 - len(drawn.mul(1e6).round().unique()) / len(drawn)
    assert repeated < 0.02  # by chance 0.014, of 100,000 numbers at six digits


def points(variant=Variant(), seed=1, settings=SMALL):  # noqa: B008 - frozen
    return [point._replace(seconds=None) for point in ablation.train_variant(variant, seed, settings)]


def test_the_same_seed_gives_the_same_curve_bit_for_bit():
    assert points() == points()
    assert points() != points(seed=2)
    assert [point.step for point in points(settings=dataclasses.replace(SMALL, steps=5))] == [2, 4, 5]


@pytest.mark.parametrize("variant", [Variant(norm="none"), Variant(kv_heads="MQA"), Variant(feed_forward="ReLU")])
def test_all_variants_of_a_seed_see_the_same_batches(variant, monkeypatch):
    seen, batch = [], Text.batch
    monkeypatch.setattr(Text, "batch", lambda *args: seen.append(batch(*args)) or seen[-1])
    for run in (points(), points(variant), points(seed=2)):
        assert len(run) == 2
    llama, other, seed = (torch.stack(seen[i : i + 4]) for i in (0, 4, 8))
    assert torch.equal(llama, other)
    assert not torch.equal(llama, seed)
    assert not any(torch.equal(one, later) for one, later in itertools.combinations(llama, 2))


def test_a_notebook_without_gradients_keeps_its_settings_and_the_model_learns():
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    try:
        curve = points(
            settings=dataclasses.replace(SMALL, steps=60, seq_len=16, learning_rate=1e-2, eval_every=30)
        )
        assert not torch.is_grad_enabled()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_grad_enabled(True)
    assert curve[0].train_loss < math.log(96)
    assert curve[-1].held_out_loss < math.log(96) - 0.8


@pytest.mark.parametrize("position", GROUPS["position"])
def test_the_characters_go_to_the_models_device(position, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "lessons")
    from another_device import PretendingMode, send_away

    text = Text.of_python()
    monkeypatch.setattr(run_file, "learn", lambda model, optimizers, loss, rate: loss().item())
    with PretendingMode():
        model = send_away(build_variant(Variant(position=position), 1, len(text.vocabulary), SMALL))
        assert [p.step for p in ablation.train_model(model, text, 1, SMALL)] == [2, 4]


def test_the_loss_is_that_of_the_next_character():
    model = randomize(make())
    windows = torch.randint(VOCABULARY, (5, 8))
    logits = model(windows[:, :7]).log_softmax(-1)
    chosen = [logits[row, i, windows[row, i + 1]] for row in range(5) for i in range(7)]
    assert ablation.mean_loss(model, windows).item() == pytest.approx(-sum(chosen).item() / 35, rel=1e-5)


def test_the_learning_rate_warms_up_and_falls_to_a_tenth():
    settings = Settings(steps=120, warmup=20, learning_rate=1.0)
    rates = [settings.learning_rate_at(step) for step in range(121)]
    assert rates[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert rates[70] == pytest.approx(0.55)
    assert rates[120] == pytest.approx(0.1)
    assert rates[20:] == sorted(rates[20:], reverse=True)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of five files, one of them not ASCII."""
    for name, text in {"a": "aab" * 10, "b": "é" * 50, "c": "bcb" * 10, "d": "dde" * 10, "e": "fff" * 10}.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    (tmp_path / "z.txt").write_text("zzz" * 10)
    monkeypatch.setattr(text_file.sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    return tmp_path


def test_held_out_files_are_none_of_those_trained_on(library):
    text = Text.of_python(training=40, held_out=10)
    assert text.vocabulary == "abcde"
    spelled = ["".join(text.vocabulary[i] for i in ids) for ids in (text.training, text.held_out)]
    assert spelled == ["aab" * 10 + "bcb" * 10, "dde" * 10]


def test_a_python_without_its_library_is_told(library):
    with pytest.raises(ValueError, match="holds 120 characters of Python source, but the lab reads 220"):
        Text.of_python(training=120, held_out=100)


def test_held_out_windows_reach_from_end_to_end(library):
    text = Text.of_python(training=40, held_out=10)
    windows = text.held_out_windows(seq_len=5, windows=4)
    assert torch.equal(windows[0], text.held_out[:6])
    assert torch.equal(windows[-1], text.held_out[-6:])


def lab(groups, out, seeds=3, settings=SMALL, jobs=1):
    return ablation.run_lab(ablation.missing_runs(groups, seeds, settings, out), settings, out, jobs)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_baseline_is_trained_once_for_all_groups(tmp_path):
    rows = list(lab(["tying", "scale"], tmp_path))
    kinds = [("llama3", "Llama 3"), ("tying", "tied"), ("scale", "none")]
    assert [(row["group"], row["variant"]) for row in rows] == kinds * 3
    assert [row["seed"] for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for group, first in (("tying", "untied"), ("scale", "1/sqrt(head_dim)")):
        curves = ablation.read_curves(group, tmp_path)
        assert list(curves) == list(GROUPS[group])
        assert {seed: len(points) for seed, points in curves[first].items()} == {0: 2, 1: 2, 2: 2}
    assert ablation.read_runs(tmp_path)[1]["n_kv_heads"] == "2"


def test_what_is_written_is_what_was_trained(tmp_path):
    list(lab(["norm"], tmp_path, seeds=1))
    kept = ablation.read_curves("norm", tmp_path)
    for name, variant in GROUPS["norm"].items():
        now = points(variant, seed=0)
        assert [p.step for p in kept[name][0]] == [p.step for p in now]
        for loss in ("train_loss", "held_out_loss"):
            got, expected = ([getattr(p, loss) for p in curve] for curve in (kept[name][0], now))
            assert got == pytest.approx(expected, abs=5.1e-5)
    row = ablation.read_runs(tmp_path)[-1]
    assert float(row["held_out_loss"]) == kept[row["variant"]][0][-1].held_out_loss
    assert not any(path.suffix == ".new" for path in tmp_path.iterdir())


def test_nothing_runs_twice(tmp_path, monkeypatch):
    trained, finish = [], lab_file._finish
    monkeypatch.setattr(lab_file, "_finish", lambda work: trained.append(work[0]) or finish(work))
    list(lab(["tying"], tmp_path / "whole", seeds=2))
    stopped = lab(["tying"], tmp_path / "stopped", seeds=2)
    list(itertools.islice(stopped, 3))
    stopped.close()
    trained.clear()
    list(lab(["tying"], tmp_path / "stopped", seeds=2))
    assert trained == [Run("tying", "tied", 1)]
    assert list(lab(["tying"], tmp_path / "stopped", seeds=2)) == []
    curves = [contents(tmp_path / name)["tying.csv"] for name in ("whole", "stopped")]
    assert curves[0] == curves[1]
    list(lab(["scale"], tmp_path / "stopped", seeds=1))
    assert trained == [Run("tying", "tied", 1), Run("scale", "none", 0)]


def test_a_kill_between_the_two_files_doubles_no_point(tmp_path, monkeypatch):
    replace = store.write_csv

    def killed(path, rows):
        if path.name == "runs.csv":
            raise KeyboardInterrupt
        replace(path, rows)

    monkeypatch.setattr(store, "write_csv", killed)
    with pytest.raises(KeyboardInterrupt):
        list(lab(["tying"], tmp_path, seeds=1))
    monkeypatch.undo()
    assert (tmp_path / "llama3.csv").exists()
    assert len(list(lab(["tying"], tmp_path, seeds=1))) == 2
    assert [p.step for p in ablation.read_curves("tying", tmp_path)["untied"][0]] == [2, 4]


def test_a_kill_while_writing_leaves_the_file_before(tmp_path, monkeypatch):
    list(lab(["tying"], tmp_path, seeds=1))
    before = contents(tmp_path)

    def cut_short(self, rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(csv.DictWriter, "writerows", cut_short)
    with pytest.raises(KeyboardInterrupt):
        list(lab(["tying"], tmp_path, seeds=2))
    assert contents(tmp_path).items() >= before.items()


@pytest.mark.long
def test_two_at_a_time_give_the_same_curves(tmp_path):
    list(lab(["tying"], tmp_path / "one", seeds=1))
    list(lab(["tying"], tmp_path / "two", seeds=1, jobs=2))
    for name in ("llama3.csv", "tying.csv"):
        assert contents(tmp_path / "one")[name] == contents(tmp_path / "two")[name]


def test_other_settings_do_not_mix(tmp_path):
    list(lab(["tying"], tmp_path, seeds=1))
    with pytest.raises(ValueError, match=r"has runs with steps 4 \(.*\), but steps 6 was asked for"):
        lab(["tying"], tmp_path, settings=dataclasses.replace(SMALL, steps=6))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 0}, "steps must be 1 or more, found 0"),
        ({"eval_every": 0}, "eval_every must be 1 or more, found 0"),
        ({"batch": 1.5}, "batch is a whole number, found 1.5"),
        ({"warmup": -1}, "warmup must be 0 or more, found -1"),
        ({"learning_rate": math.nan}, "the learning rate must be above 0 and finite, found nan"),
        ({"weight_decay": -1.0}, "the weight decay must be 0 or more and finite, found -1.0"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises((ValueError, TypeError), match=words):
        dataclasses.replace(SMALL, **wrong)


def test_numbers_of_runs_are_checked_before_the_first(tmp_path):
    with pytest.raises(ValueError, match="seeds must be 1 or more, found 0"):
        ablation.missing_runs(["tying"], 0, SMALL, tmp_path)
    with pytest.raises(ValueError, match="jobs must be 1 or more, found 0"):
        ablation.run_lab([], SMALL, tmp_path, jobs=0)
    with pytest.raises(ValueError, match="the seed must be 0 or more, found -1"):
        ablation.train_variant(Variant(), -1, SMALL)


def test_an_out_that_is_a_file_is_refused_before_the_first_run(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match=r"the folder .*out cannot be made \(it is a file\): give another --out"):
        lab(["tying"], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("runs.csv", "seed", "sead", r"runs\.csv lacks the columns seed"),
        ("runs.csv", "scale,none,0", "scale,none,x", r"line 3 of .*runs\.csv has 'x' for seed: "),
        ("runs.csv", "scale,none,0", "scale,none", r"line 3 of .*runs\.csv has another number of fields"),
        ("scale.csv", "none,0,4", "none,0,four", r"line 3 of .*scale\.csv has 'four' for step"),
        (
            "scale.csv",
            "none,0,4",
            "some,0,4",
            r"scale\.csv has a variant 'some'; there are 1/sqrt\(head_dim\), none",
        ),
        ("llama3.csv", "Llama 3", "Llama\xff", r"llama3\.csv is not UTF-8 at byte"),
    ],
)
def test_a_damaged_file_of_runs_is_named(name, old, new, words, tmp_path):
    list(lab(["scale"], tmp_path, seeds=1))
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_bytes(text.replace(old, new, 1).encode("latin-1"))
    with pytest.raises(ValueError, match=words):
        ablation.rerun("scale", "none", 0, tmp_path) if name != "runs.csv" else ablation.read_runs(tmp_path)


def test_runs_without_their_settings_cannot_be_trained_again(tmp_path):
    list(lab(["scale"], tmp_path, seeds=1))
    text = (tmp_path / "runs.csv").read_text()
    (tmp_path / "runs.csv").write_text(text.replace("eval_every", "other").replace("text_sha256", "another"))
    for look in (ablation.same_text, lambda folder: ablation.rerun("scale", "none", 0, folder)):
        with pytest.raises(ValueError, match=r"runs\.csv lacks the columns eval_every, text_sha256"):
            look(tmp_path)
    (tmp_path / "runs.csv").unlink()
    with pytest.raises(ValueError, match=r"runs\.csv has no runs: make them with `decoding-llama3 ablate"):
        ablation.same_text(tmp_path)


def test_two_labs_in_one_folder_are_refused(tmp_path):
    """Each rewrites the files of all runs: one would drop what the other has just added."""
    first = lab(["tying"], tmp_path, seeds=1)
    next(first)
    with pytest.raises(ValueError, match=r"another lab is under way in .*: wait for it, or give another --out"):
        next(lab(["scale"], tmp_path, seeds=1))
    first.close()
    assert len(list(lab(["tying"], tmp_path, seeds=1))) == 1


def test_an_unknown_group_or_an_empty_folder_is_told(tmp_path):
    with pytest.raises(ValueError, match="no group of variants is called 'norms'; there are norm, position"):
        ablation.read_curves("norms", tmp_path)
    with pytest.raises(ValueError, match="no run of untied, tied: make it with `decoding-llama3 ablate"):
        ablation.read_curves("tying", tmp_path)


def test_a_run_of_today_lies_on_the_one_kept(tmp_path):
    list(lab(["scale"], tmp_path, seeds=2))
    now, kept = ablation.rerun("scale", "none", 1, tmp_path)
    assert [p.held_out_loss for p in now] == pytest.approx([p.held_out_loss for p in kept], abs=5.1e-5)
    assert kept == ablation.read_curves("scale", tmp_path)["none"][1]
    with pytest.raises(ValueError, match=r"no run of 'none' with seed 2 is kept; there are .*none: seeds 0, 1"):
        ablation.rerun("scale", "none", 2, tmp_path)


def test_the_text_of_another_python_is_told_from_the_one_kept(tmp_path, monkeypatch):
    list(lab(["scale"], tmp_path, seeds=1))
    assert ablation.same_text(tmp_path)
    longer = Text.of_python(held_out=200_000)
    monkeypatch.setattr(Text, "of_python", lambda: longer)
    assert not ablation.same_text(tmp_path)


def finals(**losses):
    """Curves of one point each, from lists of final losses, a value a seed."""
    return {
        name: {seed: [LossPoint(1000, 2.0, loss)] for seed, loss in enumerate(values)}
        for name, values in losses.items()
    }


BASELINE = [1.80, 1.83, 1.78, 1.81, 1.79]


@pytest.mark.parametrize(
    ("losses", "word"),
    [
        ([1.90, 1.94, 1.87, 1.91, 1.90], "higher"),  # smaller than the spread of the seeds, but alike in each
        ([1.70, 1.73, 1.67, 1.71, 1.70], "lower"),
        ([1.84, 1.78, 1.80, 1.79, 1.82], "none"),
        ([1.81, 1.85, 1.78, 1.83, 1.78], "none"),  # mean a little above, one seed below
        ([math.nan, 1.83, 1.78, 1.81, 1.79], "higher"),  # one run burst
    ],
)
def test_only_a_difference_larger_than_chance_counts(losses, word):
    found = compare(finals(llama=BASELINE, other=losses))
    assert list(found) == ["other"]
    assert found["other"].verdict == word


def test_a_difference_is_taken_seed_by_seed():
    """Unpaired, the spread of the seeds would bury a difference that every seed shows."""
    found = compare(finals(llama=[1.0, 2.0, 3.0], other=[1.1, 2.2, 3.3]))["other"]
    assert found.mean == pytest.approx(0.2)
    assert found.sd == pytest.approx(0.1)
    assert (found.lowest, found.highest, found.seeds) == (pytest.approx(0.1), pytest.approx(0.3), 3)
    with pytest.raises(ValueError, match="other and llama share 2 seeds: a verdict needs 3"):
        compare(finals(llama=BASELINE, other=[1.0, 2.0]))


def test_chance_passes_as_rarely_as_is_said():
    """Five seeds without any difference: once in 90 by Student's t of 4 degrees of freedom, 1.1 %."""
    noise = torch.randn(20_000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    passed = sum(statistics._difference(row).verdict != "none" for row in noise.tolist())
    assert passed / 20_000 == pytest.approx(1 / 90, abs=4 * math.sqrt(1 / 90 / 20_000))


def test_the_figure_shows_means_bands_and_every_seed():
    steps = (100, 200, 300, 400, 500)
    curves = {
        name: {seed: [LossPoint(s, 0, base + 100 / s + 0.1 * seed) for s in steps] for seed in range(3)}
        for name, base in (("RMSNorm", 1.0), ("LayerNorm", 1.001), ("none", 2.0), ("post-norm", 1.5))
    }
    use_style()
    figure = draw_curves(curves, "LayerNorm and RMSNorm end alike", labels={"none": "no norm"})
    left, right = figure.axes
    assert figure.get_suptitle() == "LayerNorm and RMSNorm end alike"
    assert left.get_ylabel() == "held-out loss (nats per character)"
    assert [line.get_ydata()[-1] for line in left.lines] == pytest.approx([1.3, 1.301, 2.3, 1.8])
    band = left.collections[2].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((2.2, 3.2))  # seed 0 at the end, seed 2 at the start
    assert right.lines[4].get_ydata().tolist() == pytest.approx([2.2, 2.3, 2.4])
    assert [label.get_text() for label in right.get_xticklabels()] == [
        "RMSNorm",
        "LayerNorm",
        "no norm",
        "post-norm",
    ]
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in left.texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))


def test_chance_is_not_drawn_large():
    curves = finals(llama=[1.800, 1.801], other=[1.802, 1.803])
    low, high = draw_curves(curves, "No difference").axes[1].get_ylim()
    assert (low, high) == (pytest.approx(1.8015 - 0.05), pytest.approx(1.8015 + 0.05))


def test_labels_move_as_little_as_they_must():
    assert spread([1.0, 2.0, 3.0], 0.5) == pytest.approx([1, 2, 3])
    assert spread([1.0, 1.0], 1.0) == pytest.approx([0.5, 1.5])
    assert spread([0.0, 0.1, 0.2, 5.0], 1.0) == pytest.approx([-0.9, 0.1, 1.1, 5.0])
    assert spread([0.0, 1.1, 1.1, 1.1], 1.0) == pytest.approx([-0.675, 0.325, 1.325, 2.325])


def test_the_command_writes_and_goes_on(tmp_path):
    args = ["ablate", "tying", "--seeds", "1", "--steps", "1", "--out", str(tmp_path)]
    first, again = (CliRunner().invoke(app, args) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output
    assert "tying, tied, seed 0: held-out loss 4." in first.output
    assert "held-out loss" not in again.output
    assert sorted(contents(tmp_path)) == [".lock", "llama3.csv", "runs.csv", "tying.csv"]


def test_the_command_tells_an_unknown_group(tmp_path):
    result = CliRunner().invoke(app, ["ablate", "norms", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "there are norm, position" in result.stderr


@pytest.mark.skipif(not (data_directory() / "ablations").is_dir(), reason="the lab has not been run")
def test_the_kept_runs_are_whole_and_small():
    folder = data_directory() / "ablations"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000
    runs = ablation.read_runs()
    assert len(runs) == 5 * (1 + sum(len(variants) - 1 for variants in GROUPS.values()))
    for group, variants in GROUPS.items():
        curves = ablation.read_curves(group)
        assert {name: len(seeds) for name, seeds in curves.items()} == dict.fromkeys(variants, 5)
        assert list(ablation.verdict(group)) == list(variants)[1:]
