"""One colour, one meaning, in every figure (Okabe-Ito palette, safe for colour-blind readers)."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

from decoding_llama3.lessons.fonts import font_families

QUERY = "#0072B2"  # blue
KEY = "#E69F00"  # orange
VALUE = "#009E73"  # green
RESIDUAL = "#8C8C8C"  # grey
GATE = "#CC79A7"  # purple
FEED_FORWARD = "#D55E00"  # vermilion
PREDICTION = "#000000"  # black
NORM = "#5B6B7B"  # slate
ROPE = "#F0E442"  # yellow
NEUTRAL = "#56B4E9"  # sky blue, for what has no meaning of its own
WRONG = "#9E2A2B"  # dark red, for what is broken, left out or done otherwise
MARKED = "#C2185B"  # magenta, for the one thing in a figure that the text names
SEQUENTIAL = "cividis"
DIVERGING = "RdBu_r"  # always centred on zero

# Models, and the variants of a part, have colours of their own, so that blue always means query.
MODEL_COLOURS = {
    "tiny": "#332288",
    "SmolLM2": "#8B5A2B",
    "Llama 2 7B": "#B8A55C",
    "Mistral 7B": "#8A8A1F",
    "Gemma 7B": "#44AA99",
    "Llama 3 8B": "#7A4FA3",
    "Llama 3 70B": "#1F5F5B",
    "Llama 3.1 405B": "#A79CC9",
}
VARIANTS = ("#000000", "#332288", "#8B5A2B", "#44AA99", "#8A8A1F", "#A79CC9", "#1F5F5B")  # the baseline first

WIDTH = 9.0  # inches at 100 pixels: 900 pixels wide, drawn at twice the resolution

STYLE = {
    "figure.figsize": (WIDTH, 4.0),
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.size": 12,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.prop_cycle": cycler(color=VARIANTS),
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "lines.linewidth": 2,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
}


def thinned(count: int, most: int = 12) -> range:
    """Which of `count` places on an axis get a label: evenly, from the first on, `most` of them at most."""
    return range(0, count, max(1, -(-count // most)))


def with_looks(items: Iterable[Any], *looks: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Each of `items` with a look of its own of each kind; ValueError where there are more items than looks."""
    items = list(items)
    return zip(items, *(look[: len(items)] for look in looks), strict=True)


def headline(figure: Figure, title: str) -> None:
    """The sentence over a figure, on as many lines as its width needs."""
    width = round(figure.get_size_inches()[0] * 8.7)  # characters of 14 points, bold
    figure.suptitle(textwrap.fill(title, width), x=0.01, ha="left", fontweight="bold", fontsize=14)


def use_style() -> None:
    """Make the project's style the default of this Python session's figures."""
    wanted: dict[Any, Any] = STYLE | {"font.family": font_families()}
    mpl.rcParams.update(wanted)
