"""The trainer: a run is a function of its settings and text, whatever stops it on the way."""

import csv
import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import decoding_llama3 as dl
from decoding_llama3.experiments import training
from decoding_llama3.experiments.corpus import UNSCORED, Windows, encode_all
from decoding_llama3.experiments.snapshots import load_snapshot, snapshots
from decoding_llama3.experiments.training import (
    Repeats,
    TrainingSettings,
    bits_per_byte,
    run,
    state,
    train,
    train_tokenizer,
)
from decoding_llama3.experiments.training.batches import make_batch
from decoding_llama3.experiments.training.loss import make_batch_loss
from decoding_llama3.inference.checkpoint.export import save_huggingface

REPEATS = Repeats.parse("0:0.3:8,5:0.5:4")
SETTINGS = TrainingSettings(steps=7, batch=2, seq_len=16, short_steps=4, repeats=REPEATS, warmup=2, seed=1)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # a step of so small a model is shorter than the wait of two threads for each other


def config() -> dl.LlamaConfig:
    return dl.LlamaConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, vocab_size=600, tie_embeddings=True
    )


def finish(corpus, out, settings=SETTINGS, save_every=3):
    return list(train(corpus, config(), settings, out, save_every=save_every))


def weights(out):
    return load_file(out / "model.safetensors")


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_run_twice_gives_the_same_weights_bit_for_bit(corpus, tmp_path):
    for name in "xy":
        finish(corpus, tmp_path / name)
    finish(corpus, tmp_path / "other", dataclasses.replace(SETTINGS, seed=2))
    assert same(weights(tmp_path / "x"), weights(tmp_path / "y"))
    assert not same(weights(tmp_path / "x"), weights(tmp_path / "other"))


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_a_killed_run_ends_with_the_weights_of_one_never_killed(corpus, tmp_path, killed_after):
    """Were the data order, the optimizer's state or the schedule lost, the weights would differ."""
    finish(corpus, tmp_path / "whole")
    killed = train(corpus, config(), SETTINGS, tmp_path / "killed", save_every=3)
    list(itertools.islice(killed, killed_after))
    killed.close()
    assert not (tmp_path / "killed/model.safetensors").exists()
    resumed = finish(corpus, tmp_path / "killed")
    assert len(resumed) == 7 - killed_after // 3 * 3
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


FULL_DISK = r"state.safetensors cannot be written \(No space left on device\)"


@pytest.mark.parametrize(
    ("error", "seen", "words"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(28, "No space left on device"), ValueError, FULL_DISK),
    ],
    ids=["killed", "full disk"],
)
def test_a_save_that_stops_in_the_middle_leaves_the_previous_state(
    error, seen, words, corpus, tmp_path, monkeypatch
):
    running = train(corpus, config(), SETTINGS, tmp_path, save_every=1)
    list(itertools.islice(running, 2))
    before = (tmp_path / "state.safetensors").read_bytes()

    def stop_in_the_middle(tensors, path, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(state, "save_file", stop_in_the_middle)
    with pytest.raises(seen, match=words):
        next(running)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert not (tmp_path / "state.safetensors.new").exists()


def test_other_text_or_settings_do_not_go_on_from_there(corpus, tmp_path):
    list(itertools.islice(train(corpus, config(), SETTINGS, tmp_path, save_every=1), 1))
    with pytest.raises(ValueError, match="belongs to a run with other text or settings"):
        finish(corpus, tmp_path, dataclasses.replace(SETTINGS, learning_rate=1e-3))
    with pytest.raises(ValueError, match="belongs to a run with other text or settings"):
        finish(dataclasses.replace(corpus, sha256="0" * 64), tmp_path)


def test_the_loss_falls_and_everything_is_written(corpus, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=60, batch=8, learning_rate=1e-2)
    records = finish(corpus, tmp_path, settings, save_every=20)
    assert records[0]["loss"] == pytest.approx(math.log(600), abs=0.1)  # knows nothing yet
    assert records[-1]["loss"] < records[0]["loss"] - 1
    rows = list(csv.DictReader((tmp_path / "loss.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 61))
    assert [int(row["step"]) for row in rows if row["held_out"]] == [20, 40, 60]
    summary = json.loads((tmp_path / "training.json").read_text())
    assert summary["corpus"] | {"sha256": corpus.sha256, "files": 2} == summary["corpus"]
    model, tokenizer = dl.load_model(tmp_path, dtype=torch.float32), dl.load_tokenizer(tmp_path)
    nats, bits = bits_per_byte(model, tokenizer, corpus.held_out, 16)
    assert summary["held_out"]["nats_per_token"] == round(nats, 4)
    assert summary["held_out"]["bits_per_byte"] == round(bits, 4)
    learned = list(csv.DictReader((tmp_path / "learning.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in learned] == [0, 6, 20, 40, 60]
    assert float(learned[-1]["held_out"]) == pytest.approx(bits, rel=0.02)  # int8 against bfloat16
    assert float(learned[0]["first_copy"]) == pytest.approx(math.log(600), abs=0.1)


def test_snapshots_tell_how_a_run_went(corpus, tmp_path):
    """The first is the untrained model, the last the finished one, each to within half a step of int8."""
    finish(corpus, tmp_path)
    kept = snapshots(tmp_path / "snapshots")
    assert list(kept) == [0, 3, 6, 7]
    untrained = dl.Transformer(config())
    training.initialize(untrained, SETTINGS.seed)
    for step, model in ((0, untrained), (7, dl.load_model(tmp_path, dtype=torch.float32))):
        shown = dict(load_snapshot(kept[step], config()).named_parameters())
        for name, weight in model.named_parameters():
            bound = weight.abs().amax(dim=-1, keepdim=True) * (0.5 / 127 + 2**-8)  # bfloat16 keeps 8 bits
            assert ((shown[name] - weight).abs() <= bound).all(), (step, name)
    with pytest.raises(ValueError, match="holds a model of another shape"):
        load_snapshot(kept[7], dataclasses.replace(config(), n_layers=3))


def test_the_sequences_are_short_at_first_and_a_step_has_as_many_tokens(corpus, tmp_path, monkeypatch):
    shapes, make = [], run.make_batch

    def spy(*args):
        inputs, targets = make(*args)
        shapes.append(tuple(inputs.shape))
        return inputs, targets

    monkeypatch.setattr(run, "make_batch", spy)
    records = finish(corpus, tmp_path)
    assert shapes == [(4, 8)] * 4 + [(2, 16)] * 3
    assert [record["tokens"] for record in records] == [32 * (i + 1) for i in range(7)]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of itself
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_step_learns_what_huggingfaces_model_learns(corpus, tmp_path, compile):
    """Loss and gradients on text and on repeated words equal those of transformers on the same weights."""
    from transformers import LlamaForCausalLM

    settings = dataclasses.replace(SETTINGS, steps=1, short_steps=0, batch=8, repeats=REPEATS, compile=compile)
    train_tokenizer(corpus.files.values(), 600, tmp_path / "tokenizer.model")
    tokenizer = dl.Tokenizer(tmp_path / "tokenizer.model")
    tokens = encode_all(tokenizer, list(corpus.files.values()))
    inputs, targets = make_batch({16: Windows(tokenizer, tokens, 16, settings.seed)}, tokenizer, settings, 0)
    assert 0 < (targets == UNSCORED).any(dim=1).sum() < 8
    model = dl.Transformer(config())
    training.initialize(model, 0)
    save_huggingface(model, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    expected = torch.nn.functional.cross_entropy(theirs(inputs).logits.flatten(0, 1), targets.flatten())
    expected.backward()
    loss = make_batch_loss(compile, "cpu")(model, inputs, targets)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for part in ("gate", "up", "down"):
        ours = getattr(model.layers[1].feed_forward, f"w_{part}").weight.grad
        reference = getattr(theirs.model.layers[1].mlp, f"{part}_proj").weight.grad
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.output.weight.grad, theirs.lm_head.weight.grad, rtol=1e-4, atol=1e-6)


def test_the_held_out_file_is_seen_by_neither_tokenizer_nor_model(corpus, tmp_path):
    finish(corpus, tmp_path)
    tokenizer = dl.load_tokenizer(tmp_path)
    assert len(tokenizer.encode(" golden")) < 3 < len(tokenizer.encode(" elsewhere"))
    assert "dragon" in corpus.held_out
    assert not any("dragon" in text for text in corpus.files.values())


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    settings = TrainingSettings(steps=100, warmup=10, decay=0.2, learning_rate=1.0)
    rates = [settings.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(rates[10:80]) == {1.0}
    assert rates[80:] == pytest.approx([(100 - i) / 20 for i in range(80, 100)])


def test_repeats_come_in_phases():
    phases = Repeats.parse("0:0.05:128,100:0.5:32")
    settings = TrainingSettings(steps=200, repeats=phases)
    shares = [settings.repeats_at(step).share for step in (0, 99, 100, 199)]
    assert shares == [0.05, 0.05, 0.5, 0.5]
    assert settings.repeats_at(150).longest == 32
    assert TrainingSettings(steps=1).repeats_at(0).share == 0
    for wrong in ("0.05", "0:x:4", "0:1.5:9", "0:0.1:2", "1_0:0.1:9", "0:nan:9", "-1:0.1:9", "0:0.1:９"):
        with pytest.raises(ValueError, match=f"'{wrong}'"):
            Repeats.parse(wrong)


@pytest.fixture
def tokenizer(corpus, tmp_path):
    train_tokenizer(corpus.files.values(), 600, tmp_path / "tokenizer.model")
    return dl.Tokenizer(tmp_path / "tokenizer.model")


def test_bits_per_byte_of_a_model_that_knows_nothing(tokenizer):
    """With equal logits every token costs log2(vocabulary) bits, whatever the window."""
    model = dl.Transformer(config())
    model.output.weight.data.zero_()
    text = "The king said: a golden bird went — old — and a queen too.\n" * 9
    nats, bits = bits_per_byte(model, tokenizer, text, seq_len=16)
    assert nats == pytest.approx(math.log(600), rel=1e-6)
    assert bits == pytest.approx(math.log2(600) * len(tokenizer.encode(text)) / len(text.encode()), rel=1e-6)


def test_bits_per_byte_counts_every_token_once(tokenizer):
    """Where one window holds the whole text, it is the plain mean loss."""
    model = dl.Transformer(config())
    text = "the king went and the queen said a golden apple"
    ids = torch.tensor([tokenizer.encode(text, bos=True)])
    expected = torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).item()
    assert bits_per_byte(model, tokenizer, text, seq_len=4 * len(ids[0]))[0] == pytest.approx(expected, rel=1e-5)


def test_a_vocabulary_is_learned_in_llama_3s_format(corpus, tokenizer):
    assert tokenizer.n_vocab == 600
    assert [tokenizer.token_bytes(i) for i in range(256)] == [bytes([i]) for i in range(256)]
    text = corpus.files["a.txt"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) < 0.4 * len(text)


def test_a_vocabulary_the_text_cannot_fill_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"the text gives only 25\d tokens, 744 wanted: give more text"):
        train_tokenizer(["a a a\n"], 1000, tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match="a vocabulary of 500 is too small"):
        train_tokenizer(["a"], 500, tmp_path / "tokenizer.model")
    assert not (tmp_path / "tokenizer.model").exists()


def test_a_run_is_judged_at_the_length_it_has_seen(corpus, tmp_path):
    """In longer windows one would measure how it extrapolates."""
    finish(corpus, tmp_path, dataclasses.replace(SETTINGS, short_steps=7))
    summary = json.loads((tmp_path / "training.json").read_text())
    model, tokenizer = dl.load_model(tmp_path, dtype=torch.float32), dl.load_tokenizer(tmp_path)
    at_8, at_16 = (round(bits_per_byte(model, tokenizer, corpus.held_out, n)[0], 4) for n in (8, 16))
    assert summary["held_out"]["nats_per_token"] == at_8 != at_16


def test_a_deleted_state_does_not_let_another_text_take_the_old_vocabulary(corpus, tmp_path):
    """The tokenizer of the old text would go on silently, and old snapshots would mix with new ones."""
    list(itertools.islice(train(corpus, config(), SETTINGS, tmp_path, save_every=1), 3))
    (tmp_path / "state.safetensors").unlink()
    other = dataclasses.replace(corpus, sha256="0" * 64)
    with pytest.raises(ValueError, match="other text or settings: give another --out, or delete the whole folder"):
        finish(other, tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match=r"has a tokenizer.model and no run.json, so it is of another run"):
        finish(corpus, tmp_path)


def test_a_deleted_state_alone_begins_the_same_run_anew(corpus, tmp_path):
    finish(corpus, tmp_path / "whole")
    list(itertools.islice(train(corpus, config(), SETTINGS, tmp_path / "again", save_every=1), 3))
    (tmp_path / "again/state.safetensors").unlink()
    finish(corpus, tmp_path / "again")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "again"))


@pytest.mark.parametrize("cut", [0, 0.5])
def test_a_changed_vocabulary_is_refused(cut, corpus, tmp_path):
    list(itertools.islice(train(corpus, config(), SETTINGS, tmp_path, save_every=1), 1))
    path = tmp_path / "tokenizer.model"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: int(len(lines) * cut)]))
    with pytest.raises(ValueError, match=r"tokenizer.model is not the one that this run began with"):
        finish(corpus, tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"tokenizer.model, which this run began with, is gone"):
        finish(corpus, tmp_path)


def test_a_folder_of_an_older_version_is_refused(corpus, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has a state.pt and no run.json"):
        finish(corpus, tmp_path)


def test_steps_may_change_before_the_decay_and_not_after(corpus, tmp_path):
    """Seven steps fall from step 4.55 on, eleven from 7.15 on: up to there both are one schedule."""
    longer = dataclasses.replace(SETTINGS, steps=11)
    finish(corpus, tmp_path / "whole", longer)
    begun = train(corpus, config(), SETTINGS, tmp_path / "early", save_every=1)
    list(itertools.islice(begun, 4))
    begun.close()
    finish(corpus, tmp_path / "early", longer)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "early"))
    finish(corpus, tmp_path / "late")
    with pytest.raises(ValueError, match="7 steps are done, with a learning rate that falls from step 5 on"):
        finish(corpus, tmp_path / "late", longer)
    with pytest.raises(ValueError, match="7 steps are done already, 4 were asked for: ask for 7 or more"):
        finish(corpus, tmp_path / "late", dataclasses.replace(SETTINGS, steps=4))


def test_nothing_that_is_written_is_a_pickle(corpus, tmp_path):
    finish(corpus, tmp_path)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"state.safetensors", "run.json", "model.safetensors", "training.json", "loss.csv"} <= names
    assert not {name for name in names if name.endswith((".pt", ".pth", ".new", ".partial"))}
    assert not any(path.read_bytes()[:2] == b"PK" for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["state.safetensors", "model.safetensors", "training.json", "tokenizer.model"])
def test_files_are_as_readable_as_the_users_other_files(name, corpus, tmp_path):
    """A class shares a model: nothing is for its owner's eyes alone."""
    finish(corpus, tmp_path)
    (tmp_path / "plain").write_text("")
    assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("data", [b"", b"half", b"[1, 2]", bytes(8), b"\xff" * 100])
def test_a_damaged_state_is_refused_in_a_sentence(data, corpus, tmp_path):
    list(itertools.islice(train(corpus, config(), SETTINGS, tmp_path, save_every=1), 2))
    (tmp_path / "state.safetensors").write_bytes(data)
    with pytest.raises(
        ValueError, match=r"state.safetensors is damaged \(.*\): delete it, and the run begins anew"
    ):
        finish(corpus, tmp_path)
    (tmp_path / "run.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"run.json"):
        finish(corpus, tmp_path)


def test_two_trainings_in_one_folder_are_refused(corpus, tmp_path):
    first = train(corpus, config(), SETTINGS, tmp_path, save_every=1)
    next(first)
    with pytest.raises(
        ValueError, match=r"another training is under way in .*: wait for it, or give another --out"
    ):
        next(train(corpus, config(), SETTINGS, tmp_path))
    first.close()
    assert len(finish(corpus, tmp_path)) == 6


def test_a_loss_that_is_not_finite_ends_the_run(corpus, tmp_path):
    settings = dataclasses.replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(ValueError, match=r"the loss of step \d is nan: lower the learning rate of 1e\+30"):
        finish(corpus, tmp_path, settings)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"learning_rate": math.nan}, "learning_rate must be above 0 and finite, found nan"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0 and finite, found -1.0"),
        ({"learning_rate": math.inf}, "learning_rate must be above 0 and finite, found inf"),
        ({"steps": 0}, "steps must be 1 or more, found 0"),
        ({"warmup": 0}, "warmup must be 1 or more, found 0"),
        ({"batch": 0}, "batch must be 1 or more, found 0"),
        ({"batch": 1.5}, "batch is a whole number, found 1.5"),
        ({"seq_len": 8}, "seq_len must be 16 or more, found 8"),
        ({"short_steps": -1}, "short_steps must be 0 or more, found -1"),
        ({"decay": 0.0}, "decay must be a share of the steps, above 0 and at most 1, found 0.0"),
        ({"weight_decay": math.nan}, "weight_decay must be 0 or more and finite, found nan"),
        ({"seed": -1}, "the seed must be 0 or more, found -1"),
        ({"seed": 1.0}, "the seed is a whole number, found 1.0"),
        ({"seed": 2**64}, r"the seed must be below 2\*\*32, found"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises((ValueError, TypeError), match=words):
        dataclasses.replace(SETTINGS, **wrong)


def test_what_does_not_fit_together_is_refused_before_the_first_step(corpus, tmp_path):
    short = dataclasses.replace(config(), max_seq_len=8)
    with pytest.raises(ValueError, match="sequences of 16 tokens do not fit the context of 8"):
        train(corpus, short, SETTINGS, tmp_path / "a")
    with pytest.raises(ValueError, match="the held-out text is empty"):
        train(dataclasses.replace(corpus, held_out="\n"), config(), SETTINGS, tmp_path / "a")
    with pytest.raises(ValueError, match="save_every must be 1 or more, found 0"):
        train(corpus, config(), SETTINGS, tmp_path / "a", save_every=0)
    with pytest.raises(ValueError, match="device 'gpu'"):
        train(corpus, config(), SETTINGS, tmp_path / "a", device="gpu")
    assert not (tmp_path / "a").exists()
    small = dataclasses.replace(config(), vocab_size=514)
    with pytest.raises(ValueError, match=r"has 2 tokens beside 256 bytes and 256 .*: give 516 or more"):
        train(corpus, small, SETTINGS, tmp_path / "a")
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match=r"the folder .*a cannot be made \(it is a file\): give another --out"):
        train(corpus, config(), SETTINGS, tmp_path / "a")


def test_settings_of_numpy_are_pythons_own():
    """What a loop over np.arange gives is no JSON, which the settings are kept as."""
    wrapped = {
        "steps": np.int64(7),
        "seed": np.int64(1),
        "learning_rate": np.float32(2**-8),
        "decay": np.float64(0.5),
    }
    settings = dataclasses.replace(SETTINGS, **wrapped)
    assert json.loads(json.dumps(dataclasses.asdict(settings)))["learning_rate"] == 2**-8


def test_a_phase_of_repeats_is_checked_however_it_is_made():
    for wrong in ((-1, 0.1, 8), (0, math.nan, 8), (0, 1.5, 8), (0, 0.1, 3)):
        with pytest.raises(ValueError, match="found"):
            Repeats(*wrong)


def test_weights_that_are_no_numbers_are_not_saved(corpus, tmp_path, monkeypatch):
    """The step that makes them has a finite loss still; its state would be loaded and fail for ever."""
    running = train(corpus, config(), SETTINGS, tmp_path, save_every=1)
    list(itertools.islice(running, 2))
    before, learn = (tmp_path / "state.safetensors").read_bytes(), run.learn

    def burst(model, *rest):
        loss = learn(model, *rest)
        model.norm.weight.data.fill_(math.nan)
        return loss

    monkeypatch.setattr(run, "learn", burst)
    with pytest.raises(ValueError, match="the held-out loss of step 3 is nan: lower the learning rate"):
        next(running)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert list(snapshots(tmp_path / "snapshots")) == [0, 1, 2]


def test_snapshots_of_steps_that_are_trained_anew_do_not_stay(corpus, tmp_path):
    """With another number of steps they would be points of another curve."""
    finish(corpus, tmp_path / "new", dataclasses.replace(SETTINGS, steps=6))
    finish(corpus, tmp_path / "again")
    (tmp_path / "again/state.safetensors").unlink()
    finish(corpus, tmp_path / "again", dataclasses.replace(SETTINGS, steps=6))
    for name in ("learning.csv", "training.json"):
        one, other = ((tmp_path / out / name).read_text() for out in ("new", "again"))
        assert re.sub('"seconds".*', "", one) == re.sub('"seconds".*', "", other)


@pytest.mark.parametrize("change", ["metadata", "list", "records", "weight", "optimizer", "shape"])
def test_a_state_that_lacks_something_is_refused_in_a_sentence(change, corpus, tmp_path):
    list(itertools.islice(train(corpus, config(), SETTINGS, tmp_path, save_every=1), 2))
    path = tmp_path / "state.safetensors"
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["training"])
    if change == "list":
        about = [about]
    elif change == "records":
        about["records"] = about["records"][1:]
    elif change == "weight":
        tensors.pop("model.norm.weight")
    elif change == "optimizer":
        tensors.pop(next(name for name in tensors if name.startswith("optimizer.0.")))
    elif change == "shape":
        tensors["model.norm.weight"] = torch.ones(1)  # would be spread over the whole weight
    save_file(tensors, path, metadata=None if change == "metadata" else {"training": json.dumps(about)})
    with pytest.raises(
        ValueError, match=r"state\.safetensors is damaged \(.*\): delete it, and the run begins anew"
    ):
        finish(corpus, tmp_path)


def test_a_damaged_snapshot_is_named(tmp_path):
    path = tmp_path / "step-1.safetensors"
    path.write_bytes(b"half")
    (tmp_path / "step-x.safetensors").write_bytes(b"")
    assert snapshots(tmp_path) == {1: path}
    with pytest.raises(ValueError, match=r"step-1\.safetensors cannot be read as a snapshot"):
        load_snapshot(path, config())


HOLD = """
import sys, time
from pathlib import Path
from decoding_llama3.experiments.files import only_one
with only_one(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_trainer_leaves_no_lock(corpus, tmp_path):
    """The lock is the operating system's: it ends with the process, however that ends."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another training is under way"):
            next(train(corpus, config(), SETTINGS, tmp_path))
        other.kill()
    assert len(finish(corpus, tmp_path)) == 7
