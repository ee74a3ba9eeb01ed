"""What is kept of how the copying circuit forms: the file that comes along, and that a training gives it."""

import pytest
import torch

from decoding_llama3.experiments import copying, induction


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_what_is_kept_has_five_seeds_of_every_kind_at_the_same_steps():
    sights = copying.read_sights()
    steps = {
        (sight.kind, sight.seed): [
            other.step for other in sights if (other.kind, other.seed) == (sight.kind, sight.seed)
        ]
        for sight in sights
    }
    assert steps.keys() == {(kind, seed) for kind in copying.KINDS for seed in range(5)}
    for (kind, _), found in steps.items():
        last = copying.KINDS[kind][1]
        assert found == [1, *range(10, last + 1, 10)]


def test_what_is_kept_shows_what_part_5_says_of_it():
    last = {(sight.kind, sight.seed): sight for sight in copying.read_sights()}  # of each the last step
    two = [sight for (kind, _), sight in last.items() if kind == "two blocks"]
    one = [sight for (kind, _), sight in last.items() if kind == "one block"]
    fixed = [sight for (kind, _), sight in last.items() if kind == "one block, always 12"]
    assert all(min(sight.accuracy, sight.at_9) > 0.9 for sight in two)
    assert all(min(sight.before, sight.copying) > 0.4 for sight in two)
    assert all(sight.accuracy < 0.5 for sight in one)
    assert all(sight.accuracy > 0.9 > 0.3 > sight.at_9 for sight in fixed)


def test_sights_are_written_as_they_are_read(monkeypatch, tmp_path):
    monkeypatch.setattr(copying, "KINDS", {"two blocks": (2, 10, induction.PERIODS)})
    copying.write_sights(tmp_path / "copying.csv", seeds=2)
    sights = copying.read_sights(tmp_path / "copying.csv")
    assert [(sight.seed, sight.step) for sight in sights] == [(0, 1), (0, 10), (1, 1), (1, 10)]
    again = copying.watch_copier("two blocks", 1)
    assert sights[-1].accuracy == pytest.approx(again[-1].accuracy, abs=1e-4)
    assert sights[-1].before == pytest.approx(again[-1].before, abs=1e-4)


def test_the_strongest_heads_are_found_where_they_are(monkeypatch):
    """A first block whose second head attends to the letter before, a last one whose first head copies."""
    letters, periods = induction.rows_of_repeats(64, torch.Generator().manual_seed(1))
    n = letters.shape[1]
    before, copies = torch.zeros(64, 2, n, n), torch.zeros(64, 2, n, n)
    before[:, 1] = 0.75 * torch.diag(torch.ones(n - 1), -1)
    for row, period in enumerate(periods.tolist()):
        copies[row, 0] = 0.5 * torch.diag(torch.ones(n - period + 1), 1 - period)
    monkeypatch.setattr(copying, "attention_weights", lambda model, tokens: [before, copies])
    assert copying.strongest_heads(induction.build_copier(2)) == pytest.approx((0.75, 0.5))
