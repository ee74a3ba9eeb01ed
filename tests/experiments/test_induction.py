"""The toy that forms a circuit: its rows, its loss, and that one block does not see what was before."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import decoding_llama3 as dl
from decoding_llama3.experiments import induction


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # a step of so small a model is shorter than the wait of two threads for each other


def test_rows_begin_again_after_a_number_of_their_own():
    tokens, periods = induction.rows_of_repeats(200, torch.Generator().manual_seed(0))
    assert tokens.shape == (200, induction.SEQ)
    assert set(periods.tolist()) == set(induction.PERIODS)
    for row, period in zip(tokens, periods.tolist(), strict=True):
        assert torch.equal(row[period:], row[:-period])
    assert (tokens[:, 5:] != tokens[:, :-5]).any(dim=1).sum() > 150  # not all after five
    assert set(tokens.unique().tolist()) == set(range(induction.LETTERS))


def test_the_loss_is_that_of_letters_behind_a_repeat():
    torch.manual_seed(0)
    model, tokens = induction.build_copier(1), torch.tensor([[3, 4, 5, 3, 4, 5, 3]])
    with torch.no_grad():
        loss, right = induction.losses(model, tokens, torch.tensor([3]))
        log_p = model(tokens)[0].log_softmax(dim=-1)
    # The letter at 3 repeats too, but nothing before it says so.
    expected = -(log_p[3, 4] + log_p[4, 5] + log_p[5, 3]) / 3
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    chosen = [int(log_p[i].argmax()) == int(tokens[0, i + 1]) for i in (3, 4, 5)]
    assert right == pytest.approx(sum(chosen) / 3)


def test_it_is_the_packages_model_without_feed_forward():
    model = induction.build_copier(2)
    assert isinstance(model, dl.Transformer)
    assert all(isinstance(layer.attention, dl.Attention) for layer in model.layers)
    assert not [name for name, _ in model.named_parameters() if "feed_forward" in name]
    x = torch.randn(1, 3, 64)
    assert not model.layers[0].feed_forward(x).any()


def test_training_depends_on_the_seed_alone_and_starts_unknowing():
    moments = []
    for _ in range(2):
        with torch.no_grad():  # as in a notebook
            moments.append(list(induction.train_copier(induction.build_copier(2), steps=20)))
    assert moments[0] == moments[1]
    assert [moment.step for moment in moments[0]] == [1, 10, 20]
    assert moments[0][0].loss > math.log(induction.LETTERS) - 0.5
    assert moments[0][-1].loss < moments[0][0].loss


def test_the_letters_go_to_the_models_device(monkeypatch):
    """Letters and periods drawn on the CPU would meet logits on a GPU."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "lessons")
    from another_device import PretendingMode, send_away

    here = induction.accuracy(induction.build_copier(2))
    monkeypatch.setattr(induction, "learn", lambda model, optimizers, loss, clip: loss().item())
    with PretendingMode():
        model = send_away(induction.build_copier(2))
        assert induction.accuracy(model) == here
        assert len(list(induction.train_copier(model, steps=1))) == 1


def test_accuracy_counts_what_a_perfect_reader_would_get():
    class Reader(torch.nn.Module):
        """Knows the period by looking; what it cannot know it gets wrong."""

        def forward(self, tokens):
            guess = torch.full_like(tokens, 0)
            for row in range(len(tokens)):
                for period in induction.PERIODS:
                    if torch.equal(tokens[row, period:], tokens[row, :-period]):
                        guess[row, :-1] = tokens[row, 1:]
            return F.one_hot(guess, induction.LETTERS).float()

    assert induction.accuracy(Reader()) == 1
