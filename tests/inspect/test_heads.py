"""Scores of heads, against circuits made by hand whose every attention weight is known."""

import copy
import math

import pytest
import torch

import decoding_llama3 as dl
from decoding_llama3.inference.quantize import quantize_int8
from decoding_llama3.inspect import heads, probe

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
ROWS = torch.tensor([[7, 1, 200, 33, 33], [5, 319, 0, 14, 90]])
# Begin-of-text, then 5 tokens twice; or 4 tokens twice and half of a third copy.
REPEATED = torch.tensor([[0, 3, 14, 1, 9, 6, 3, 14, 1, 9, 6], [0, 2, 7, 11, 5, 2, 7, 11, 5, 2, 7]])
PERIODS = torch.tensor([5, 4])


@torch.no_grad()
def circuit() -> dl.Transformer:
    """Two blocks of four heads that attend as told, over tokens 1 to 14 and begin-of-text, 0.

    Block 0: head 0 looks at the token before, head 1 at position 0, head 2 at all copies of the token itself,
    head 3 at everything alike. Head 0 writes which token it saw, so that in block 1 head 0 finds the places whose
    token before is the present one: induction. It predicts the token it finds there.
    """
    sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "hidden_dim": 8, "vocab_size": 15}
    model = dl.Transformer(dl.LlamaConfig(**sizes, rope_theta=1e38))  # pair 0 turns, the others as good as not
    for weight in model.parameters():
        weight.fill_(1 if weight.dim() == 1 else 0)
    t = torch.arange(1, 15)
    # Features of the stream: 0 always, t the token, 15 begin-of-text, 15 + t the token before, 30 + t the next.
    embedding, first, second = model.tok_embeddings.weight, model.layers[0].attention, model.layers[1].attention
    embedding[:, 0], embedding[t, t], embedding[0, 15] = 1, 1, 1
    sharp = 20
    first.wk.weight[0, 0] = sharp  # turned by the position; the query by one less, so that they meet one back
    first.wq.weight[:2, 0] = sharp * torch.tensor([math.cos(1), -math.sin(1)])
    first.wv.weight[1 + t, t] = first.wo.weight[15 + t, 1 + t] = 1
    first.wq.weight[16 + 2, 0] = first.wk.weight[16 + 2, 15] = sharp
    first.wq.weight[32 + 1 + t, t] = first.wk.weight[32 + 1 + t, t] = sharp
    second.wq.weight[1 + t, t] = second.wk.weight[1 + t, 15 + t] = sharp
    second.wv.weight[1 + t, t] = second.wo.weight[30 + t, 1 + t] = 1
    model.output.weight[t, 30 + t] = 20
    return model


def test_scores_are_the_attention_a_hand_made_head_pays():
    scores = heads.head_scores(circuit(), REPEATED, PERIODS)
    assert list(scores) == ["previous", "first", "duplicate", "induction"]
    assert all(values.shape == (2, 4) for values in scores.values())
    unsure = (sum(1 / (i + 1) for i in range(1, 6)) + sum(1 / (i + 1) for i in range(1, 5))) / 20
    expected = {
        (0, 0): [1, 0, 0, 0],
        (0, 1): [1 / 10, 1, 0, 0],  # the token before position 1 is position 0
        # Of 11 tokens in later copies two stand in a third: attention is shared with another copy before,
        # and in a head that looks for the token itself, with that.
        (0, 2): [0, 0, (5 / 2 + 4 / 2 + 2 / 3) / 11, 0],
        (1, 0): [unsure, 0, 0, (5 + 4 + 2 / 2) / 11],  # nothing to find in the first copy: all places alike
    }
    for (layer, head), four in expected.items():
        assert [values[layer, head].item() for values in scores.values()] == pytest.approx(four, abs=1e-4)


def test_a_head_that_looks_at_everything_alike_pays_each_place_its_part():
    """So the queries are right too: all but position 0 for "previous", the later copies for the rest."""
    scores = heads.head_scores(circuit(), REPEATED, PERIODS)
    later = [*range(6, 11), *range(5, 11)]
    by_chance = sum(1 / (position + 1) for position in later) / len(later)
    assert scores["previous"][0, 3] == pytest.approx(sum(1 / (i + 1) for i in range(1, 11)) / 10)
    for kind in ("first", "duplicate", "induction"):
        assert scores[kind][0, 3] == pytest.approx(by_chance)
        assert scores[kind][1, 1:].tolist() == pytest.approx([by_chance] * 3)


def test_induction_foresees_the_later_copies_alone():
    first, later = heads.repeat_losses(circuit(), REPEATED, PERIODS)
    assert first > math.log(15)
    assert later < 1e-4


def test_repeat_losses_are_means_over_the_copies(model):
    with torch.no_grad():
        chances = model(REPEATED).softmax(dim=-1)
    losses = [[-chances[row, i - 1, REPEATED[row, i]].log().item() for i in range(1, 11)] for row in (0, 1)]
    firsts, laters = losses[0][:5] + losses[1][:4], losses[0][6:] + losses[1][5:]
    expected = (sum(firsts) / len(firsts), sum(laters) / len(laters))
    assert heads.repeat_losses(model, REPEATED, PERIODS) == pytest.approx(expected, rel=1e-4)


def draw(seed: int = 0, **changes):
    arguments = {"ids": range(5, 17), "bos_id": 17, "batch": 20, "seq": 30, "periods": range(3, 13)} | changes
    return heads.repeated_random_tokens(**arguments, generator=torch.Generator().manual_seed(seed))


def test_random_tokens_repeat_after_their_period():
    tokens, periods = draw()
    assert tokens.shape == (20, 30)
    assert len(set(periods.tolist())) > 5
    for row, period in zip(tokens.tolist(), periods.tolist(), strict=True):
        assert 3 <= period <= 12
        assert row[0] == 17
        assert len(set(row[1 : period + 1])) == period
        assert set(row[1:]) <= set(range(5, 17))
        assert row[1:] == (row[1 : period + 1] * 10)[:29]
    assert {5, 16} <= set(tokens.flatten().tolist())


def test_random_tokens_are_those_of_the_generator():
    torch.manual_seed(1)
    once = draw()
    torch.manual_seed(2)
    for ours, theirs in zip(once, draw(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(once[0], draw(seed=1)[0])


@pytest.mark.parametrize("prepare", [lambda model: model, quantize_int8], ids=["float32", "int8"])
def test_shares_of_heads_sum_to_the_share_of_their_attention(model, prepare):
    model = prepare(model)
    for layer in (0, 1):
        shares = heads.head_attribution(model, ROWS, position=3, token=42, layer=layer)
        assert shares.shape == (2, model.config.n_heads)
        whole = probe.logit_attribution(model, ROWS, position=3, token=42)[f"{layer}.attention"]
        torch.testing.assert_close(shares.sum(dim=1), whole, **CLOSE)


def test_a_head_has_no_share_once_its_columns_of_wo_are_zero(model):
    """Head 5 owns features 80 to 95; in the last block nobody reads it but the feed-forward and the output."""
    before = probe.writes(model, ROWS)["1.attention"]
    zero_columns(model, layer=1, head=5)
    shares = heads.head_attribution(model, ROWS, position=3, token=42, layer=1)
    assert not torch.allclose(probe.writes(model, ROWS)["1.attention"], before)
    assert shares[:, 5].eq(0).all()
    assert shares.ne(0).sum() == 2 * (model.config.n_heads - 1)


def test_a_silenced_head_is_one_whose_columns_of_wo_are_zero(model):
    chosen = [(0, 2), (1, 11), (0, 7)]
    cut, before = copy.deepcopy(model), model(ROWS)
    for layer, head in chosen:
        zero_columns(cut, layer, head)
    with heads.without_heads(model, chosen):
        torch.testing.assert_close(model(ROWS), cut(ROWS), **CLOSE)
        assert not torch.allclose(model(ROWS), before, atol=0.1)
    assert torch.equal(model(ROWS), before)


def test_heads_speak_again_after_an_exception(model):
    before = model(ROWS)
    with pytest.raises(ZeroDivisionError), heads.without_heads(model, [(0, 2), (1, 3)]):
        raise ZeroDivisionError
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(ROWS), before)


def test_without_the_head_that_tells_the_token_before_induction_fails():
    """The two heads work in series: cut either, and the copy is no longer foreseen."""
    model = circuit()
    for head in ((0, 0), (1, 0)):
        with heads.without_heads(model, [head]):
            assert heads.repeat_losses(model, REPEATED, PERIODS)[1] > 1
    with heads.without_heads(model, [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]):
        assert heads.repeat_losses(model, REPEATED, PERIODS)[1] < 1e-4


def zero_columns(model: dl.Transformer, layer: int, head: int) -> None:
    with torch.no_grad():
        model.layers[layer].attention.wo.weight[:, 16 * head : 16 * (head + 1)] = 0


def silence(model, *chosen):
    with heads.without_heads(model, chosen):
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: silence(m, (0, 0), (2, 0)), "no layer 2: choose one of 0 to 1$"),
        (lambda m: silence(m, (0, 0), (1, 12)), "no head 12: choose one of 0 to 11$"),
        (lambda m: heads.head_attribution(m, ROWS, position=5, token=0, layer=0), "no position 5: .* 0 to 4$"),
        (lambda m: heads.head_attribution(m, ROWS, position=0, token=320, layer=0), "no token 320: .* 0 to 319$"),
        (lambda m: heads.head_attribution(m, ROWS, position=0, token=0, layer=-1), "no layer -1"),
        (lambda m: heads.head_scores(m, REPEATED, PERIODS.flip(0)), "row 0 does not repeat after 4 tokens"),
        (lambda m: heads.repeat_losses(m, REPEATED, torch.tensor([5, 10])), "row 1 does not repeat after 10"),
        (lambda m: draw(periods=range(3, 14)), r"range\(3, 14\) of periods must lie from 2 to the 12 ids"),
        (lambda m: draw(periods=range(1, 5)), "must lie from 2"),
        (lambda m: draw(bos_id=5), r"begin-of-text, 5, is one of the ids to draw"),
        (lambda m: draw(seq=24), "seq 24 is too short for two copies of 12 tokens: take 25$"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)
    assert all(not module._forward_pre_hooks for module in model.modules())
