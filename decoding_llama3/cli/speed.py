"""How fast a text comes, in tokens per second."""

import time
from collections.abc import Iterable, Iterator

from decoding_llama3.cli.terminal import note


class Speed:
    """Times one text after another. The step that had to be compiled first does not count as decoding."""

    def __init__(self) -> None:
        self._begin(0)

    def timed(self, tokens: Iterable[int], n_read: int) -> Iterator[int]:
        """`tokens` as they come, of which the first comes when `n_read` tokens of the prompt have been read."""
        self._begin(n_read)
        for token in tokens:
            now = time.perf_counter()
            self.seconds.append(now - self._last)
            self._last = now
            yield token

    def report(self, line: str) -> None:
        """For `Generator`, which says that it compiles before it does so."""
        note(line)
        self._compiling = len(self.seconds)

    def line(self) -> str:
        """Of the last text: tokens read and made, and how many of each per second."""
        if not self.seconds:
            return "no new tokens"
        first, *steps = self.seconds
        found = f"prompt: {self.n_read:,} tokens read, {self.n_read / first:,.4g} tokens per second"
        found += f"; new: {len(self.seconds):,} tokens"
        timed = [seconds for i, seconds in enumerate(steps, start=1) if i != self._compiling]
        if timed:
            found += f", {len(timed) / sum(timed):,.4g} tokens per second"
        if self._compiling is not None and self._compiling < len(self.seconds):
            found += f"; compiling: {self.seconds[self._compiling]:.1f} s"
        return found

    def _begin(self, n_read: int) -> None:
        self.n_read, self.seconds, self._compiling = n_read, [], None
        self._last = time.perf_counter()
