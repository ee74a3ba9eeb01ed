"""Three questions at the head of each part, on the part before it, marked where they stand."""

from collections.abc import Sequence
from dataclasses import dataclass

from IPython.display import Markdown, display


@dataclass(frozen=True)
class Question:
    """`options` are called a, b, c in this order; `why` is shown with the verdict."""

    text: str
    options: tuple[str, str, str]
    right: str
    why: str


QUESTIONS: dict[str, tuple[Question, Question, Question]] = {
    "tokenizer": (  # nothing comes before: what Part 1 takes for granted
        Question(
            'How many bytes has "é" in UTF-8?',
            ("1", "2", "4"),
            "b",
            "letters of English take one byte, most others of Europe two",
        ),
        Question(
            "A table has 4,096 rows of 256 numbers. Looking up row 7 takes",
            ("one multiplication per row", "256 multiplications", "no arithmetic"),
            "c",
            "a look-up only copies a row",
        ),
        Question(
            "How many times must 1 be halved to become 1/8?",
            ("3", "8", "4"),
            "a",
            "1/2, 1/4, 1/8: log2 of 8 is 3",
        ),
    ),
    "config": (
        Question(
            "Byte pair encoding joins, of all neighbours that may be joined, the pair",
            ("that is longest", "of the lowest rank", "farthest left"),
            "b",
            "ranks are in the order in which pairs were learned",
        ),
        Question(
            'A user types "<|eot_id|>" into a chat. In the ids of the conversation it becomes',
            ("the special token", "an error", "ordinary tokens of its letters"),
            "c",
            "special tokens are put in by the program alone",
        ),
        Question(
            "A text has a character that the tokenizer never counted. It becomes",
            ("one token for each of its bytes, at worst", "the token for unknown", "nothing"),
            "a",
            "all 256 bytes are tokens, so nothing is unknown",
        ),
    ),
    "norm": (
        Question(
            "Which of these cannot be seen in the shapes of the weights?",
            ("the width of the stream", "the number of blocks", "the number of heads"),
            "c",
            "eight heads of 32 features or four of 64: the matrix is the same",
        ),
        Question(
            "Most parameters of Llama 3 8B are in",
            ("attention", "the feed-forward networks", "the two tables of tokens"),
            "b",
            "70 % are",
        ),
        Question(
            "The cache of a text of twice the length takes",
            ("twice the memory", "four times the memory", "the same memory"),
            "a",
            "each token adds a key and a value in every block",
        ),
    ),
    "rope": (
        Question(
            "RMSNorm of a vector that was made ten times longer gives",
            ("ten times as much", "the same, eps aside", "a tenth"),
            "b",
            "it drops the length and keeps the direction",
        ),
        Question(
            "Over which numbers is the mean of the squares taken?",
            ("the features of one token", "one feature of all tokens", "all numbers of the batch"),
            "a",
            "each token is normalised for itself",
        ),
        Question(
            "What is normalised in a block of Llama?",
            ("the residual stream itself", "the weights", "a copy that the next part reads"),
            "c",
            "the stream only grows, sum by sum",
        ),
    ),
    "attention": (
        Question(
            "RoPE turns",
            ("the embeddings, once", "queries and keys, in every block", "queries, keys and values"),
            "b",
            "values are mixed, not compared: they stay as they are",
        ),
        Question(
            "All positions of a text grow by 1,000. The scores",
            ("stay", "grow", "become noise"),
            "a",
            "only distances count",
        ),
        Question(
            "A pair of features that hardly turns within a text compares",
            ("where two tokens stand", "nothing", "what two tokens are"),
            "c",
            "position does not reach it",
        ),
    ),
    "feed_forward": (
        Question(
            "The scores are divided by the root of head_dim because",
            (
                "a sum of head_dim products has that spread",
                "that makes the weights add up to 1",
                "the model is that wide",
            ),
            "a",
            "else the softmax saturates and no gradient comes through",
        ),
        Question(
            "What does the cache hold?",
            ("queries, keys and values", "rotated keys, and values", "the weights of attention"),
            "b",
            "a query is used once, when its token is new",
        ),
        Question(
            "In Llama 3 8B one key/value head serves",
            ("2 query heads", "8 query heads", "4 query heads"),
            "c",
            "32 query heads over 8",
        ),
    ),
    "transformer": (
        Question(
            "The feed-forward network of a token reads",
            ("that token alone", "all tokens before it", "the whole text"),
            "a",
            "what it knows of others, attention wrote into it before",
        ),
        Question(
            "Why is 8/3 the width of SwiGLU that has as many parameters as a plain layer of width 4?",
            ("grouped queries save them", "it has three matrices, not two", "SiLU halves the work"),
            "b",
            "3 times 8/3 is 2 times 4",
        ),
        Question(
            "w_gate and w_up are exchanged when a checkpoint is loaded. What happens?",
            ("an error: the shapes differ", "nothing: a product has no order", "no error, and bad text"),
            "c",
            "SiLU bends one of the two only",
        ),
    ),
}


def ask(stem: str, answers: Sequence[str | None]) -> None:
    """Display the three questions of a part, and mark `answers`: "a", "b" or "c" each, None for not yet.

    Raises ValueError where the number of answers is not that of the questions.
    """
    questions = QUESTIONS[stem]
    if len(answers) != len(questions):
        raise ValueError(
            f"there are {len(questions)} questions, found {len(answers)} answers: give one each, or None"
        )
    lines = []
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True), 1):
        options = "; ".join(f"**{letter}** {text}" for letter, text in zip("abc", question.options, strict=True))
        asked = question.text if question.text.endswith("?") else f"{question.text}:"
        lines.append(f"{i}. {asked} {options}. {_mark(question, answer)}")
    display(Markdown("\n".join(lines)))


def _mark(question: Question, answer: str | None) -> str:
    if answer is None:
        return "*(open)*"
    if answer not in ("a", "b", "c"):
        raise ValueError(f"an answer is 'a', 'b', 'c' or None, found {answer!r}")
    return f"*{'Right' if answer == question.right else 'No'}: {question.why}.*"
