"""The bug museum: parts that run, but are broken. A reader sees the symptom, names the cause, and mends it.

What an exhibit shows is measured on the spot, with a healthy function, the broken one, and the reader's own.
"""

import inspect
import io
from collections.abc import Callable
from contextlib import redirect_stdout

import torch
from IPython.display import Markdown, display

from decoding_llama3.lessons.exhibit import Exhibit, Seen
from decoding_llama3.lessons.exhibits import attention, chat, feed_forward, norm, rope, transformer
from decoding_llama3.lessons.practice.compare import same
from decoding_llama3.lessons.practice.example import error_clause
from decoding_llama3.lessons.practice.limit import TookTooLong, time_limit
from decoding_llama3.lessons.practice.mistake import Mistake
from decoding_llama3.lessons.practice.outcome import failed
from decoding_llama3.lessons.practice.same_as import check_signature
from decoding_llama3.lessons.show import show_table
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

EXHIBITS: dict[str, Exhibit] = {
    name: exhibit
    for part in (norm, rope, attention, feed_forward, transformer, chat)
    for name, exhibit in part.EXHIBITS.items()
}
LETTERS = "abcd"
MINUTE = 60.0


@torch.no_grad()
def visit(
    name: str,
    model: Transformer,
    tokenizer: Tokenizer,
    diagnosis: object = None,
    mended: Callable | None = None,
) -> None:
    """Show an exhibit's symptom and its four possible causes, and answer `diagnosis`, "a", "b", "c" or "d".

    The right one shows the broken function. `mended`, the reader's own in its place, is then measured beside it.
    Whatever is passed is answered in a sentence; nothing is raised.
    """
    exhibit = EXHIBITS.get(str(name))
    if exhibit is None:
        print(f"There is no exhibit {name!r}: choose one of {', '.join(EXHIBITS)}.")
        return
    healthy, broken = (exhibit.symptom(model, tokenizer, each) for each in (exhibit.healthy, exhibit.fault))
    if _same(exhibit, broken, healthy):
        print(f"{exhibit.setting}\nOn this model nothing is to be seen: visit the exhibit with another one.")
        return
    letter, columns, verdict = _letter(diagnosis), {"healthy": healthy, "broken": broken}, ""
    if mended is not None and letter != exhibit.right:
        verdict = "A mended function is tried once the cause is named."
    elif mended is not None:
        yours = _measured(exhibit, model, tokenizer, mended)
        verdict = _verdict(exhibit, broken, healthy, yours)
        columns |= {"yours": yours} if isinstance(yours, Seen) else {}
    print(exhibit.setting)
    show_table([[row, *(each.rows[row] for each in columns.values())] for row in healthy.rows], ["", *columns])
    print(*(f"{letter}) {cause}" for letter, cause in zip(LETTERS, exhibit.causes, strict=True)), sep="\n")
    print(f"Your diagnosis: {_answer(exhibit, diagnosis, letter)}")
    if letter == exhibit.right:
        display(Markdown(_explained(exhibit, name, letter)))
    if verdict:
        print(verdict)


def _letter(diagnosis: object) -> str:
    """The letter that a reader means; "" where nothing is answered yet, "?" where it is none."""
    if diagnosis is None:
        return ""
    text = str(diagnosis).strip(" \n\t().\"'").lower()
    return text if text in ("", *LETTERS) else "?"


def _answer(exhibit: Exhibit, diagnosis: object, letter: str) -> str:
    if letter == "":
        return 'open. Set it to "a", "b", "c" or "d". The right one shows the broken code, and you can mend it.'
    if letter == "?":
        return f'{diagnosis!r:.40}. A diagnosis is "a", "b", "c" or "d".'
    if letter == exhibit.right:
        return f"{letter}, and that is the cause."
    return f"{letter}, but it cannot be that. {list(exhibit.causes.values())[LETTERS.index(letter)]}"


def _explained(exhibit: Exhibit, name: str, letter: str) -> str:
    """The cause, the broken function, and the invitation to mend it."""
    code, parameters = inspect.getsource(exhibit.fault).rstrip(), ", ".join(_parameters(exhibit))
    return (
        f"{list(exhibit.causes.values())[LETTERS.index(letter)]}\n\n```python\n{code}\n```\n\n"
        f"**Mend it.** Write it anew, with the parameters `({parameters})`, and pass it: "
        f'`museum.visit("{name}", ..., "{letter}", mended=my_function)`. {exhibit.task}'
    )


def _parameters(exhibit: Exhibit) -> tuple[str, ...]:
    return tuple(inspect.signature(exhibit.fault).parameters)


def _measured(exhibit: Exhibit, model: Transformer, tokenizer: Tokenizer, mended: Callable) -> Seen | str:
    """The symptom with the reader's function, or why there is none."""
    try:
        check_signature(mended, exhibit.fault, _parameters(exhibit))
        with time_limit(MINUTE), redirect_stdout(io.StringIO()):
            return exhibit.symptom(model, tokenizer, mended)
    except TookTooLong:
        return f"it has not returned after {MINUTE:.0f} s and was interrupted"
    except Mistake as mistake:
        return str(mistake)
    except (Exception, SystemExit) as error:
        return error_clause(failed(mended, error))


def _same(exhibit: Exhibit, one: Seen, other: Seen) -> bool:
    return same(one.result, other.result, exhibit.tolerance)


def _verdict(exhibit: Exhibit, broken: Seen, healthy: Seen, yours: Seen | str) -> str:
    if isinstance(yours, str):
        return f"Your function could not be measured: {yours}."
    if _same(exhibit, yours, healthy):
        return f"The fault is gone: with your function {exhibit.result} agree with the healthy model's."
    if _same(exhibit, yours, broken):
        return "The fault is still there: your function does what the broken one does."
    return f"Not mended yet: with your function {exhibit.result} still differ from the healthy model's."
