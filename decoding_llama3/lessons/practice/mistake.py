"""What a check raises."""


class Mistake(Exception):
    """What a check sees in an answer, in a sentence; `example`, lines that show it on small numbers.

    `named`: the sentence says what the mistake is, not only where the results differ.
    """

    def __init__(self, sentence: str, example: str = "", named: bool = True) -> None:
        super().__init__(sentence)
        self.example = example
        self.named = named


class Unanswered(Exception):
    """The stub as it stands."""


class HandedIn(Exception):
    """The answer has the right form; its numbers are judged by whoever has the solutions."""
