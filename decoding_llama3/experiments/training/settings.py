"""What a training does: sizes, schedule, seed. Wrong settings are refused before anything begins."""

import re
from dataclasses import dataclass

from decoding_llama3.experiments.seeds import check_run_seed
from decoding_llama3.inference.arguments import check_real, check_whole

_WHOLE = {"steps": 1, "batch": 1, "seq_len": 16, "short_steps": 0, "warmup": 1}  # setting: the least it can be
_REAL = (
    ("learning_rate", "above 0 and finite", lambda rate: rate > 0),
    ("decay", "a share of the steps, above 0 and at most 1", lambda share: 0 < share <= 1),
    ("weight_decay", "0 or more and finite", lambda decay: decay >= 0),
)


@dataclass(frozen=True)
class Repeats:
    """From a step on, this share of the sequences are repeated random tokens, to grow induction heads."""

    from_step: int
    share: float
    longest: int  # tokens until the sequence repeats, at most

    def __post_init__(self) -> None:
        check_whole("the first step of a phase of repeats", self.from_step, 0)
        check_whole("the longest repeated span", self.longest, 4)
        check_real("a share of repeats", self.share, "from 0 to 1", lambda share: 0 <= share <= 1)

    @classmethod
    def parse(cls, text: str) -> tuple["Repeats", ...]:
        """Phases such as "0:0.05:128,1000:0.01:32"; "" is none. Raises ValueError for another form or range."""
        phases = []
        for phase in filter(None, text.split(",")):
            if not re.fullmatch(r"[0-9]{1,9}:[0-9]*\.?[0-9]+:[0-9]{1,9}", phase):
                raise ValueError(f"repeats are step:share:longest, comma, and so on, found {text!r:.60}")
            step, share, longest = phase.split(":")
            try:
                phases.append(cls(int(step), float(share), int(longest)))
            except ValueError as error:
                raise ValueError(f"{error}, in the repeats {text!r:.60}") from None
        return tuple(phases)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The learning rate rises for `warmup` steps, stays, and falls to zero over the last part.

    Numbers out of range raise ValueError.
    """

    steps: int
    batch: int = 16  # sequences per step
    seq_len: int = 512  # tokens per sequence
    short_steps: int = 0  # the first steps, in which sequences are half as long and twice as many: faster
    repeats: tuple[Repeats, ...] = ()
    learning_rate: float = 6e-3
    warmup: int = 100  # steps
    decay: float = 0.35  # share of the steps in which the learning rate falls
    weight_decay: float = 0.1
    autocast: bool = False  # matrix products in bfloat16
    compile: bool = False  # needs a C++ compiler; half again as fast
    seed: int = 3

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():  # as Python's own numbers: those of numpy are no JSON
            object.__setattr__(self, name, check_whole(name, getattr(self, name), least))
        object.__setattr__(self, "seed", check_run_seed(self.seed))
        for name, expected, is_right in _REAL:
            object.__setattr__(self, name, check_real(name, getattr(self, name), expected, is_right))

    @property
    def decay_start(self) -> float:
        """The step from which on the learning rate falls."""
        return self.steps * (1 - self.decay)

    def shape_at(self, step: int) -> tuple[int, int]:
        """Sequences and tokens per sequence."""
        return (2 * self.batch, self.seq_len // 2) if step < self.short_steps else (self.batch, self.seq_len)

    def repeats_at(self, step: int) -> Repeats:
        """The phase that a step is in."""
        begun = [phase for phase in self.repeats if phase.from_step <= step]
        return max(begun, key=lambda phase: phase.from_step, default=Repeats(0, 0.0, 4))

    def learning_rate_at(self, step: int) -> float:
        """Of a step, counted from 0."""
        rising = (step + 1) / self.warmup
        falling = (self.steps - step) / (self.decay * self.steps)
        return self.learning_rate * min(1.0, rising, falling)
