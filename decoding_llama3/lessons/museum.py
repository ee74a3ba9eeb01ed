"""The bug museum: broken blocks that run without an error. The symptom comes first; the reader names the cause.

Each exhibit breaks a copy of a working model in one line. What it prints is measured on the spot.
"""

import inspect

import torch
from IPython.display import Markdown, display

from decoding_llama3.lessons.exhibit import Exhibit
from decoding_llama3.lessons.exhibits import attention, chat, feed_forward, norm, rope, transformer
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

EXHIBITS: dict[str, Exhibit] = {
    name: exhibit
    for part in (norm, rope, attention, feed_forward, transformer, chat)
    for name, exhibit in part.EXHIBITS.items()
}


@torch.no_grad()
def visit(name: str, model: Transformer, tokenizer: Tokenizer, diagnosis: str | None = None) -> None:
    """Show an exhibit's symptom and its three possible causes, and judge `diagnosis` ("a", "b", "c" or None).

    Another diagnosis raises ValueError.
    """
    exhibit = EXHIBITS[name]
    if diagnosis not in ("a", "b", "c", None):
        raise ValueError(f"a diagnosis is 'a', 'b', 'c' or None, found {diagnosis!r}")
    print(*exhibit.symptom(model, tokenizer), sep="\n")
    print(*(f"{letter}) {cause}" for letter, cause in zip("abc", exhibit.causes, strict=True)), sep="\n")
    if diagnosis is None:
        print("your diagnosis: open")
    else:
        print(f"your diagnosis: {diagnosis}, " + ("right" if diagnosis == exhibit.right else "no, look again"))
    code = inspect.getsource(exhibit.fault).rstrip()
    answer = f"**{exhibit.right}.** {exhibit.explanation}\n\n```python\n{code}\n```"
    display(Markdown(f"<details><summary>The cause, and the broken code</summary>\n\n{answer}\n\n</details>"))
