"""Part 2 - the model drawn to scale from its configuration: a floor per block, areas true to parameters.

Every matrix of a Llama has `dim` as one of its sides. So all are strips of that thickness, and their lengths say
the rest: the embedding is the ground floor, the blocks are the floors above it, the output is the roof.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, HPacker, TextArea
from matplotlib.patches import Patch, Rectangle

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures.ablation import spread

STRIP_COLOURS = {
    "embedding": style.RESIDUAL,
    "wq": style.QUERY,
    "wk": style.KEY,
    "wv": style.VALUE,
    "wo": style.NEUTRAL,
    "w_gate": style.GATE,
    "w_up": style.FEED_FORWARD,
    "w_down": "#994300",  # as w_up, darker
    "output": style.PREDICTION,
}
_INK = "#4D4D4D"
_DASHED = (0, (3, 2))


@dataclass(frozen=True)
class Load:
    """What lies on graphics cards of `card` bytes each: the weights, and beside them a cache of `texts`."""

    weights: float
    cache: float
    card: float
    cards: int
    texts: str


def strips(config: LlamaConfig) -> dict[str, int]:
    """How long each matrix of a block is; its other side is `dim`."""
    own, shared = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    wide = dict.fromkeys(("w_gate", "w_up", "w_down"), config.hidden_dim)
    return {"wq": own, "wk": shared, "wv": shared, "wo": own, **wide}


def in_bytes(n_bytes: float) -> str:
    """Bytes in words, in powers of 1,000: "16.1 GB"."""
    size, unit = next(((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if n_bytes >= s), (1, "bytes"))
    return f"{n_bytes / size:,.1f} {unit}"


def draw_to_scale(
    config: LlamaConfig, title: str, load: Load | None = None, before: LlamaConfig | None = None
) -> Figure:
    """The whole model, one of its blocks enlarged, and the load of a card, if any; dashed, the model `before`."""
    figure = plt.figure(figsize=(style.WIDTH, 5.4))
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(4, 5))[0]
    tower = left.subplots()
    _draw_tower(tower, config, before)
    _name_floors(tower, config)
    block, fields, *card = right.subplots(3 if load else 2, 1)
    _draw_block(block, config)
    _name_lengths(fields, config, before or config)
    if load:
        _draw_card(card[0], load)
    style.headline(figure, title)
    return figure


def draw_towers(models: Mapping[str, tuple[LlamaConfig, str]], title: str) -> Figure:
    """Models side by side, all drawn with the same area; below each, what is said of it."""
    units = [config.n_params**0.5 for config, _ in models.values()]  # the side of a square of the whole area
    extents = [_extent(config) for config, _ in models.values()]
    widths = [max(1.9, 1.06 * width / unit) for (width, _), unit in zip(extents, units, strict=True)]
    top = max(height / unit for (_, height), unit in zip(extents, units, strict=True))
    figure, axes = plt.subplots(1, len(models), figsize=(style.WIDTH, 3.4), width_ratios=widths)
    for ax, (name, (config, words)), unit, width in zip(axes, models.items(), units, widths, strict=True):
        _draw_tower(ax, config)
        ax.set(xlim=(-width * unit / 2, width * unit / 2), ylim=(-0.01 * top * unit, 1.01 * top * unit))
        look = {"fontsize": 11, "fontweight": "normal", "loc": "center", "linespacing": 1.4}
        ax.set_title(f"{name}\n{words}", y=-0.02, va="top", **look)
    patches = [Patch(color=colour, label=name) for name, colour in STRIP_COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), handlelength=1, columnspacing=1)
    style.headline(figure, title)
    return figure


def draw_block_matrices(config: LlamaConfig, names: Sequence[str], title: str) -> Figure:
    """Some matrices of a block beside each other, to scale; over each its sides and how many numbers it has."""
    figure, axes = plt.subplots(1, len(names), figsize=(style.WIDTH, 3.2))
    longest = max(strips(config)[name] for name in names)
    for ax, name in zip(axes, names, strict=True):
        length = strips(config)[name]
        ax.add_patch(Rectangle((-length / 2, 0), length, config.dim, color=STRIP_COLOURS[name], linewidth=0))
        words = f"{name}\n{length:,} x {config.dim:,}\n= {length * config.dim:,}"
        ax.set_title(words, fontsize=12, fontweight="normal", loc="center")
        ax.set(xlim=(-0.55 * longest, 0.55 * longest), ylim=(0, 1.02 * config.dim), xticks=[], yticks=[])
        ax.set_aspect("equal", anchor="S")
        ax.spines[:].set_visible(False)
    style.headline(figure, title)
    return figure


def _draw_tower(ax: Axes, config: LlamaConfig, before: LlamaConfig | None = None) -> None:
    """The floors, from y = 0 up, each centred on x = 0."""
    dim, lengths = config.dim, strips(config)
    long, top = sum(lengths.values()), dim * (1 + config.n_layers)
    _add_strip(ax, "embedding", -config.vocab_size / 2, 0, config.vocab_size, dim)
    x = -long / 2
    for name, length in lengths.items():
        _add_strip(ax, name, x, dim, length, dim * config.n_layers)
        x += length
    for i in range(config.n_layers + 1):  # a seam between floors
        ax.add_patch(
            Rectangle((-long / 2, (i + 0.94) * dim), long, 0.12 * dim, color="white", linewidth=0, snap=False)
        )
    if config.tie_embeddings:
        _add_outline(ax, config.vocab_size, dim, top)
    else:
        _add_strip(ax, "output", -config.vocab_size / 2, top, config.vocab_size, dim)
    width, height = _extent(config)
    if before is not None:
        for length, thick, bottom in _floors(before):
            _add_outline(ax, length, thick, bottom)
        width, height = map(max, (width, height), _extent(before))
    ax.set(xlim=(-0.51 * width, 0.51 * width), ylim=(-0.01 * height, 1.01 * height))
    ax.set_aspect("equal", anchor="S")
    ax.axis("off")


def _extent(config: LlamaConfig) -> tuple[float, float]:
    return max(config.vocab_size, sum(strips(config).values())), config.dim * (config.n_layers + 2)


def _floors(config: LlamaConfig) -> list[tuple[float, float, float]]:
    """Length, thickness and bottom of the ground floor, of all blocks together, and of the roof."""
    dim, blocks = config.dim, config.dim * config.n_layers
    floors: list[tuple[float, float, float]] = [
        (config.vocab_size, dim, 0),
        (sum(strips(config).values()), blocks, dim),
    ]
    return floors if config.tie_embeddings else [*floors, (config.vocab_size, dim, dim + blocks)]


def _add_outline(ax: Axes, length: float, thick: float, bottom: float) -> None:
    corner = (-length / 2, bottom)
    ax.add_patch(Rectangle(corner, length, thick, fill=False, edgecolor=_INK, linestyle=_DASHED, linewidth=1.2))


def _add_strip(ax: Axes, name: str, x: float, y: float, length: float, thick: float) -> None:
    ax.add_patch(Rectangle((x, y), length, thick, color=STRIP_COLOURS[name], linewidth=0, gid=name, snap=False))


def _name_floors(ax: Axes, config: LlamaConfig) -> None:
    """Words above and below the tower, and a square of a round number of parameters at its scale."""
    table = f"{config.vocab_size:,} rows of {config.dim:,}"
    roof = "output: the embedding once more" if config.tie_embeddings else f"output: {table}"
    long, middle = sum(strips(config).values()), config.dim * (1 + config.n_layers / 2)
    for words, at, shift, align in (
        (roof, (0, config.dim * (config.n_layers + 2)), (0, 4), ("center", "bottom")),
        (f"embedding: {table}", (0, 0), (0, -4), ("center", "top")),
        (f"{config.n_layers}\nblocks", (long / 2, middle), (6, 0), ("left", "center")),
    ):
        ax.annotate(
            words, at, shift, textcoords="offset points", ha=align[0], va=align[1], fontsize=11,
            annotation_clip=False, bbox={"color": "white", "pad": 0.5},
        )  # fmt: skip
    _add_scale(ax, config)


def _add_scale(ax: Axes, config: LlamaConfig) -> None:
    """A square of a round number of parameters at the scale of the tower above it."""
    area = round_area(config.n_params)
    square = AuxTransformBox(ax.transData)
    square.add_artist(Rectangle((0, 0), area**0.5, area**0.5, color=_INK, linewidth=0))
    row = HPacker(
        children=[square, TextArea(f"{in_words(area)} parameters", textprops={"fontsize": 11})],
        align="center",
        pad=0,
        sep=6,
    )
    ax.add_artist(
        AnchoredOffsetbox(
            "upper center",
            child=row,
            frameon=False,
            borderpad=1.9,
            bbox_to_anchor=(0.5, 0),
            bbox_transform=ax.transAxes,
        )
    )


def in_words(count: int) -> str:
    """A round number in words: "10 million"."""
    size, unit = next(((s, u) for s, u in ((10**9, " billion"), (10**6, " million")) if count >= s), (1, ""))
    return f"{count / size:,g}{unit}"


def round_area(n_params: int) -> int:
    """A power of ten, from a hundredth to a thousandth of the parameters."""
    return 10 ** math.floor(math.log10(n_params / 100))


def _draw_block(ax: Axes, config: LlamaConfig) -> None:
    lengths = strips(config)
    long, x, middles = sum(lengths.values()), 0.0, []
    for name, length in lengths.items():
        _add_strip(ax, name, x, 0, length, config.dim)
        middles.append(x + length / 2)
        x += length
        ax.vlines(x, 0, config.dim, color="white", linewidth=1)
    for name, middle, at in zip(lengths, middles, spread(middles, 0.062 * long), strict=True):
        ax.annotate(
            name, (middle, config.dim), (at, config.dim + 0.03 * long), ha="center", va="bottom", fontsize=11,
            color=STRIP_COLOURS[name], arrowprops={"arrowstyle": "-", "linewidth": 0.7, "color": _INK},
        )  # fmt: skip
    ax.set_title("one block, enlarged", fontsize=12, fontweight="normal")
    ax.set(xlim=(-0.02 * long, 1.02 * long), ylim=(-0.02 * long, config.dim + 0.1 * long))
    ax.set_aspect("equal", anchor="S")
    ax.axis("off")


def _name_lengths(ax: Axes, config: LlamaConfig, before: LlamaConfig) -> None:
    """The fields behind the sides of the strips; bold, what is not as `before`."""
    former = _lengths_in_words(before)
    for row, (what, words) in enumerate(_lengths_in_words(config).items()):
        size, weight = (11, "normal") if words == former[what] else (10, "bold")
        ax.text(0.02, 0.95 - 0.24 * row, what, va="top", fontsize=11, color=_INK, transform=ax.transAxes)
        ax.text(0.2, 0.95 - 0.24 * row, words, va="top", fontsize=size, fontweight=weight, transform=ax.transAxes)
    ax.axis("off")


def _lengths_in_words(config: LlamaConfig) -> dict[str, str]:
    c = config
    return {
        "all": f"dim = {c.dim:,}",
        "wq, wo": f"n_heads x head_dim = {c.n_heads} x {c.head_dim} = {c.n_heads * c.head_dim:,}",
        "wk, wv": f"n_kv_heads x head_dim = {c.n_kv_heads} x {c.head_dim} = {c.n_kv_heads * c.head_dim:,}",
        "the others": f"hidden_dim = {c.hidden_dim:,}",
    }


def _draw_card(ax: Axes, load: Load) -> None:
    gb = 1e9
    for i in range(load.cards):
        corner = (i * load.card / gb, 0)
        ax.add_patch(Rectangle(corner, load.card / gb, 1, fill=False, edgecolor=_INK, linewidth=1.5))
    ax.barh(0.5, load.weights / gb, height=0.86, color=style.RESIDUAL)
    ax.barh(0.5, load.cache / gb, left=load.weights / gb, height=0.86, color=style.KEY)
    ax.text(0, 1.62, f"weights in bfloat16: {in_bytes(load.weights)}", color="dimgrey", va="bottom")
    ax.text(0, 1.12, f"cache of {load.texts}: {in_bytes(load.cache)}", color="#B07900", va="bottom")
    whole, used = load.cards * load.card / gb, (load.weights + load.cache) / gb
    words = f"a graphics card of {load.card / gb:.0f} GB"
    words = words if load.cards == 1 else f"{load.cards} graphics cards of {load.card / gb:.0f} GB each"
    if used > whole:
        look = {"fill": False, "edgecolor": style.WRONG, "hatch": "///", "linewidth": 1.5}
        ax.add_patch(Rectangle((whole, 0.07), used - whole, 0.86, gid="too much", **look))
        words += f": {used - whole:.1f} GB too much"
    end = max(whole, used)
    ax.set(ylim=(-0.08, 2.1), xlim=(-0.015 * end, 1.015 * end), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(words, color=style.WRONG if used > whole else "black")
