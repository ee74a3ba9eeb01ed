"""Exercises: a stub in the notebook, a check that names the mistake it sees, hints, a solution.

A check calls the learner's function and raises `Mistake` with one sentence. The exercises of a part are in
`checks/<stem>.py`; the solutions, which an edition for students lacks, in `solutions/<stem>.py`.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from IPython.display import Markdown, display

from decoding_llama3.lessons.practice.mistake import HandedIn, Mistake, Unanswered


@dataclass(frozen=True)
class Verdict:
    """`state` is "open", "wrong", "right" or "handed in"; `feedback` is what the learner reads.

    `named`: the feedback says what the mistake is, not only that there is one.
    """

    state: str
    feedback: str
    named: bool = False


@dataclass(frozen=True)
class Exercise:
    """A task: `check(answer)` returns if the answer is right and raises `Mistake` if not.

    `solution` is None in the edition for students. A `graded` one is judged by whoever marks; its check says to
    the learner only whether the answer has the right form, unless the solutions are at hand.
    """

    check: Callable[[Callable], None]
    solution: Callable | None
    hints: tuple[str, ...]
    graded: bool = False

    def mark(self, answer: object) -> Verdict:
        """Judge `answer`. Whatever it is or does, nothing is raised: a wrong answer is no error of a notebook."""
        try:
            self.check(answer)  # type: ignore[arg-type]  # a check answers whatever a learner hands in
        except Unanswered:
            return Verdict("open", "open: it returns None so far (a forgotten `return` looks the same)")
        except HandedIn:
            return Verdict("handed in", "it has the right form; its result will be marked")
        except Mistake as mistake:
            example = f"\nThe smallest example that shows it:\n{mistake.example}" if mistake.example else ""
            return Verdict("wrong", f"not yet: {mistake}{example}", mistake.named)
        return Verdict("right", "right")

    def __call__(self, answer: object) -> None:
        """Mark `answer` and print what was found."""
        print(self.mark(answer).feedback)

    def help(self) -> None:
        """Display the hints and, where it is at hand, the solution, each folded up."""
        folded = {f"Hint {i}": hint for i, hint in enumerate(self.hints, 1)}
        if self.solution is not None:
            folded["Solution"] = f"```python\n{textwrap.dedent(inspect.getsource(self.solution)).rstrip()}\n```"
        display(
            Markdown(
                "\n\n".join(
                    f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
                    for title, text in folded.items()
                )
            )
        )
