"""The clock, against one that we move."""

import pytest
import torch

from decoding_llama3.benchmark import clock


class Clock:
    """Moves only when it is moved, and a microsecond at each reading."""

    def __init__(self, monkeypatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(clock, "now", self.read)

    def read(self, device) -> float:
        self.seconds += 1e-6
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def hand(monkeypatch):
    return Clock(monkeypatch)


def test_a_slow_call_is_repeated_no_longer_than_was_asked(hand):
    calls = []

    def call():
        calls.append(hand.move(20.0))

    assert clock.median_seconds(call, "cpu", min_seconds=50.0) == pytest.approx(20.0)
    assert len(calls) == 1 + 1 + 3  # the first call, one to see how long it takes, three that reach 50 s


def test_a_fast_call_is_timed_many_at_once_and_the_fastest_block_counts(hand):
    """A call takes 1 ms, but every other block of 100 ms is disturbed; to read the clock takes a microsecond."""

    def call():
        hand.move(1e-3 if hand.seconds % 0.2 < 0.1 else 3e-3)

    assert clock.best_seconds(call, "cpu") == pytest.approx(1e-3, rel=1e-3)


def test_the_median_is_not_moved_by_one_slow_call(hand):
    took = iter([5.0, 1.0, 1.0, 7.0, 1.0, 1.0, 1.0])
    assert clock.median_seconds(lambda: hand.move(next(took)), "cpu", min_seconds=10.0) == pytest.approx(
        1.0, rel=1e-5
    )


def test_the_number_of_threads_stays_as_it_is():
    seen = []
    torch.set_num_threads(2)
    clock.best_seconds(lambda: seen.append(torch.get_num_threads()), "cpu")
    assert set(seen) == {2}


def test_the_clock_waits_for_the_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    clock.now("cuda")
    clock.now("cpu")
    assert waited == ["cuda"]
