"""What every notebook does the same way: set up, show a figure, show source, show numbers as a table."""

import base64
import html
import inspect
import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from jaxtyping import Int
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from decoding_llama3.inference.checkpoint.find import read_config
from decoding_llama3.inference.checkpoint.hub_cache import HUB_NAME, cached_model
from decoding_llama3.inference.checkpoint.named import SMOLLM2
from decoding_llama3.inference.data import cache_directory, data_directory
from decoding_llama3.inference.devices import choose_dtype
from decoding_llama3.inference.download import download_model
from decoding_llama3.inference.load import load_model
from decoding_llama3.inference.memory import choose_fit
from decoding_llama3.inference.tokenizers.find import load_tokenizer
from decoding_llama3.lessons.style import use_style
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.lessons.subject import ids_of as ids_of  # notebooks and figures call both by this module
from decoding_llama3.lessons.subject import token_strings as token_strings
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

OPENING = (
    "Once upon a time there was a king who had a golden bird"  # travels through the parts; see `read_opening`
)
TALE = (  # of our own, so that no model has seen it: for measuring a loss where the opening is too short
    'A miller had three sons and one donkey. When he was old he called them and said, "Who finds the golden '
    'bird shall have the mill." The eldest went into the forest, and the forest kept him. The second went to '
    "the mountains, and the mountains kept him too. Then the youngest took the donkey, for he had nothing else, "
    "and rode after the wind. In the evening he met an old woman who was looking for her needle. He went down on "
    'his knees and looked with her until the moon was up, and there it lay, shining in the grass. "You have '
    'found more than you know," said the old woman. "The bird sings only where somebody has been kind." And '
    "when he came home, it was sitting on the wheel of the mill, and it sang."
)

_OUT_OF_SIGHT = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)"  # but read aloud


def set_up(threads: int = 2) -> tuple[Transformer, Tokenizer, str]:
    """Set the figure style and the seed; return the tiny model, its tokenizer and the sentence that travels.

    Says what runs where, and whose sentence it is if it is the reader's.
    """
    use_style()
    torch.manual_seed(0)
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    torch.set_grad_enabled(False)
    dtype = choose_dtype("cpu")
    model = load_model("tiny", device="cpu", dtype=dtype)
    kind = str(dtype).removeprefix("torch.")
    print(f"tiny ({model.config.n_params:,} parameters) on cpu in {kind}, torch {torch.__version__}")
    tokenizer = load_tokenizer("tiny")
    return model, tokenizer, read_opening(tokenizer)


def read_opening(tokenizer: Tokenizer, path: Path = Path("opening.txt")) -> str:
    """The sentence that travels through the parts: the reader's own, where such a file lies at hand.

    A sentence that is too short or long, or no UTF-8 text, raises ValueError.
    """
    if not path.exists():
        return OPENING
    try:
        sentence = " ".join(path.read_text(encoding="utf-8").split())
    except UnicodeDecodeError:
        raise ValueError(
            f"{path.resolve()} is not text in UTF-8: write your sentence anew, or delete it"
        ) from None
    n_tokens = len(tokenizer.encode(sentence))
    if not 12 <= n_tokens <= 24:
        raise ValueError(
            f"the sentence in {path.resolve()} has {n_tokens} tokens, but the notebooks want 12 to 24: "
            f"write a {'longer' if n_tokens < 12 else 'shorter'} one, or delete the file"
        )
    print(f"the sentence that travels, from {path}: {sentence}")
    return sentence


def held_out_text() -> str:
    """The beginning of a book that neither tiny nor its tokenizer has read; see data/README.md."""
    return (data_directory() / "tiny-llama3" / "held_out.txt").read_text(encoding="utf-8")


def held_out_ids(
    model: Transformer, tokenizer: Tokenizer, windows: int | None = None, length: int = 256
) -> Int[Tensor, "windows length"]:
    """The held-out text in rows that follow on each other, begin-of-text first in each, on the model's device.

    Without `windows` 8 of them, but 1 of a model that is slow here.
    More tokens than the text has raise ValueError.
    """
    windows = windows or (1 if is_slow(model) else 8)
    ids, needed = tokenizer.encode(held_out_text()), windows * (length - 1)
    if len(ids) < needed:
        raise ValueError(
            f"the held-out text has {len(ids):,} tokens, but {windows} windows of {length} need {needed:,}: "
            "ask for fewer or shorter ones"
        )
    rows = torch.tensor(ids[:needed]).view(windows, length - 1)
    return F.pad(rows, (1, 0), value=tokenizer.bos_id).to(model.norm.weight.device)


def ordinary_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokens that stand for more than one byte of text, so for nothing special."""
    special = set(tokenizer.special_ids.values())
    ordinary = (token for token in range(tokenizer.n_vocab) if token not in special)
    return [token for token in ordinary if len(tokenizer.token_bytes(token)) > 1]


def common_words(tokenizer: Tokenizer, most: int = 3000) -> list[int]:
    """Ids of the words, or their beginnings, learned first: a space and ASCII letters; `most` at most."""
    texts = {token: tokenizer.token_bytes(token).decode(errors="replace") for token in ordinary_ids(tokenizer)}
    return [t for t, text in texts.items() if text[:1] == " " and text[1:].isalpha() and text.isascii()][:most]


def real_model(checkpoint: str = "", tokenizer: str = "") -> Subject | None:
    """A real model and its tokenizer: of the checkpoint with this path or name, else of
    DECODING_LLAMA3_CHECKPOINT, else SmolLM2; None where that has not been downloaded.

    OWNER/NAME is a model on the Hugging Face Hub: what is missing of it is downloaded, once.
    `tokenizer` is given where it does not lie with the checkpoint. On a GPU if there is one, in int8 if it fits in
    no wider way. Says what runs where, or what to do. Tokenizer and memory are checked before a weight is read:
    what is missing, damaged or does not fit raises ValueError.
    """
    path = checkpoint or os.environ.get("DECODING_LLAMA3_CHECKPOINT", "") or "smollm2"
    if path == "smollm2" and not (cache_directory() / "smollm2" / SMOLLM2).is_file():
        print("To see this on a real model, run 'decoding-llama3 download smollm2' once (93 MB), then this again.")
        print("Or write the path of a Llama above; DECODING_LLAMA3_CHECKPOINT sets it for all seven parts.")
        return None
    if HUB_NAME.fullmatch(path) and not os.path.exists(path) and cached_model(path) is None:
        download_model(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = read_config(path)
    fit = choose_fit(config, device)
    its_tokenizer = load_tokenizer(tokenizer or path, path)
    model = load_model(path, device=device, dtype=fit.dtype, quantize=fit.quantize)
    print(f"{path} ({config.n_params:,} parameters) on {device} in {fit}")
    return Subject("SmolLM2" if path == "smollm2" else Path(path).name, model, its_tokenizer)


def look_at_real_model(real: Subject | None, quick: Sequence[Callable], slow: Sequence[Callable] = ()) -> None:
    """Draw each look of the real model, if there is one; the slow ones only where it is small or on a GPU."""
    if real is None:
        return
    for look in quick:
        look(real.model, real.tokenizer)
    if slow and is_slow(real.model):
        names = ", ".join(look.__name__ for look in slow)
        print(f"left out, because a CPU takes minutes for it: {names}")
        return
    for look in slow:
        look(real.model, real.tokenizer)


def is_slow(model: Transformer) -> bool:
    """Whether each run of the model takes seconds: on a CPU, and far larger than tiny."""
    return model.norm.weight.device.type == "cpu" and model.config.n_params > 50e6


def mark(prediction: float | None, answer: float, unit: str) -> str:
    """The answer in words, and by which factor a reader's prediction (None: not made yet) was off.

    A prediction that is not above 0 raises ValueError.
    """
    feedback = f"{answer:,} {unit}"
    if prediction is None:
        return f"{feedback} (no prediction yet: write one in place of None and run the cell again)"
    if not 0 < prediction < float("inf"):
        raise ValueError(f"the prediction is {prediction}, but a number above 0 was expected: write another one")
    factor = max(prediction, answer) / min(prediction, answer)
    return f"{feedback}; you predicted {prediction:,}, {factor:.1f} times off"


def show_figure(figure: Figure, alt: str) -> None:
    """Display `figure` at twice its resolution; for readers who do not see it, its title and `alt`.

    These stand behind the picture, out of sight, because JupyterLab and its exports show no alt text of a picture.
    The plain text is `alt` alone: titles have numbers, whose last digit may differ between processors.
    """
    full, buffer = io.BytesIO(), io.BytesIO()
    title = figure.get_suptitle() or next((ax.get_title("left") for ax in figure.axes), "")
    title = title.replace(r"\$", "$")
    description = f"{title}. {alt}" if title else alt
    figure.savefig(full, format="png", dpi=2 * figure.dpi)
    plt.close(figure)
    # 256 colours take a third of the bytes: notebooks carry their pictures along. They are chosen by distance,
    # and not by how many pixels they fill, so that a scale of colours keeps its steps.
    few = Image.open(full).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(buffer, "png", optimize=True)
    width, height = (round(side) for side in figure.get_size_inches() * figure.dpi)
    bundle = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"width": width, "height": height, "alt": description}})
    markup = f'<p class="figure-description" style="{_OUT_OF_SIGHT}">{html.escape(description)}</p>'
    display({"text/html": markup, "text/plain": ""}, raw=True)


def show_source(*objects: Callable) -> None:
    """Display the source of functions or classes of the package: the very lines that run."""
    for thing in objects:
        module = thing.__module__.replace(".", "/")
        display(Markdown(f"`{module}.py`\n```python\n{inspect.getsource(thing).rstrip()}\n```"))


def show_table(rows: Iterable[Sequence], header: Sequence[str], caption: str = "", folded: str = "") -> None:
    """Display rows as a table: numbers are grouped in thousands and stand right, words stand left.

    A page folds it away under the words of `folded`.
    """
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True)) or [()] * len(header)
    left = [not all(map(_is_number, column)) for column in columns]
    widths = [max(map(len, (name, *column))) for name, column in zip(header, columns, strict=True)]
    plain = "\n".join(_in_line(row, left, widths) for row in (header, *cells))
    head = _in_tags("th", left, header)
    body = "".join(f"<tr>{_in_tags('td', left, row)}</tr>" for row in cells)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    markup = f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    if folded:
        markup = f"<details><summary>{html.escape(folded)}</summary>{markup}</details>"
    display({"text/html": markup, "text/plain": plain}, raw=True)


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, alone or with its unit."""
    unit = r"%|x|s|ms|[A-Z]\w*|· 10\S*"
    return not cell or bool(re.fullmatch(rf"[+−-]?(nan|inf|\d[\d.,]*(e[+-]?\d+)?)( ?({unit}))?", cell))


def _in_line(cells: Sequence[str], left: Sequence[bool], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(n) if at_left else cell.rjust(n) for cell, at_left, n in zip(cells, left, widths, strict=True)
    )
    return "  ".join(padded).rstrip()


def _in_tags(tag: str, left: Sequence[bool], cells: Sequence[str]) -> str:
    styles = (' style="text-align: left"' if at_left else "" for at_left in left)
    return "".join(f"<{tag}{style}>{html.escape(cell)}</{tag}>" for style, cell in zip(styles, cells, strict=True))
