"""The trainer: a run is a function of its settings and text, whatever stops it on the way."""

import csv
import dataclasses
import itertools
import json
import math

import pytest
import torch
from safetensors.torch import load_file

import decoding_llama3 as dl
from decoding_llama3.experiments import training
from decoding_llama3.experiments.snapshots import load_snapshot, snapshots
from decoding_llama3.experiments.tokenizer_training import train_tokenizer
from decoding_llama3.experiments.training import Repeats, TrainingSettings, bits_per_byte, train

REPEATS = Repeats.parse("0:0.3:8,5:0.5:4")
SETTINGS = TrainingSettings(steps=7, batch=2, seq_len=16, short_steps=4, repeats=REPEATS, warmup=2, seed=1)


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


def test_a_kill_while_saving_leaves_the_state_before(corpus, tmp_path, monkeypatch):
    run = train(corpus, config(), SETTINGS, tmp_path, save_every=1)
    list(itertools.islice(run, 2))
    before = (tmp_path / "state.pt").read_bytes()

    def cut_short(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(training.torch, "save", cut_short)
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert (tmp_path / "state.pt").read_bytes() == before


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
    shapes, step = [], training._step

    def spy(model, loss_of, optimizers, batch, *rest):
        shapes.append(tuple(batch[0].shape))
        return step(model, loss_of, optimizers, batch, *rest)

    monkeypatch.setattr(training, "_step", spy)
    records = finish(corpus, tmp_path)
    assert shapes == [(4, 8)] * 4 + [(2, 16)] * 3
    assert [record["tokens"] for record in records] == [32 * (i + 1) for i in range(7)]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of itself
@pytest.mark.parametrize("compile", [False, True])
def test_a_step_learns_what_huggingfaces_model_learns(corpus, tmp_path, compile):
    """Loss and gradients on text and on repeated words equal those of transformers on the same weights."""
    from transformers import LlamaForCausalLM

    settings = dataclasses.replace(SETTINGS, steps=1, short_steps=0, batch=8, repeats=REPEATS, compile=compile)
    tokenizer = training._tokenizer(corpus, config(), tmp_path)
    tokens = training.encode_all(tokenizer, list(corpus.files.values()))
    inputs, targets = training._batch(
        {16: training.Windows(tokenizer, tokens, 16, settings.seed)}, tokenizer, settings, 0
    )
    assert 0 < (targets == training.UNSCORED).any(dim=1).sum() < 8
    model = dl.Transformer(config())
    training.initialize(model, 0)
    training.save_huggingface(model, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    expected = torch.nn.functional.cross_entropy(theirs(inputs).logits.flatten(0, 1), targets.flatten())
    expected.backward()
    loss_of = torch.compile(training._loss, dynamic=False) if compile else training._loss
    loss = loss_of(model, inputs, targets)
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
    for wrong in ("0.05", "0:x:4", "0:1.5:9", "0:0.1:2"):
        with pytest.raises(ValueError, match=f"found '{wrong}'"):
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
