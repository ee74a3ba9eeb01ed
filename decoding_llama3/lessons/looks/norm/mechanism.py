"""Part 3 - what is shown where the norm is built."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.inspect import probe
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures import norm as figures
from decoding_llama3.lessons.show import show_figure, show_table
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.norm import RMSNorm
from decoding_llama3.transformer import Transformer

# A deep stack of random weights, for what norms do before anything is learned.
DEEP = LlamaConfig(
    dim=64,
    n_layers=24,
    n_heads=4,
    n_kv_heads=4,
    hidden_dim=172,
    vocab_size=256,
    norm_eps=1e-5,
    rope_theta=1e4,
    rope_scaling=None,
    tie_embeddings=False,
    max_seq_len=64,
)


def random_stack(seed: int, size: float = 1.0, n_layers: int = DEEP.n_layers) -> Transformer:
    """A deep model of random weights: see `give_random_weights`."""
    model = Transformer(dataclasses.replace(DEEP, n_layers=n_layers)).eval().requires_grad_(False)
    give_random_weights(model, size, torch.Generator().manual_seed(seed))
    return model


@torch.no_grad()
def give_random_weights(model: Transformer, size: float, generator: torch.Generator) -> None:
    """Give `model` weights by chance: an embedding of RMS 1, and matrices that multiply the size of a vector by
    `size`, on average."""
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            std = 1.0 if name.startswith("tok_embeddings") else size * weight.shape[1] ** -0.5
            weight.normal_(std=std, generator=generator)


def sums() -> None:
    """A stream of three features, and what four parts add to it."""
    writes = {
        "embedding": (1, 2, 0),
        "attention 0": (0, -1, 1),
        "feed-forward 0": (2, 0, 0),
        "attention 1": (0, 0, -3),
        "feed-forward 1": (-1, 1, 1),
    }
    end = [sum(column) for column in zip(*writes.values(), strict=True)]
    title = f"The stream is a running sum: five vectors make ({', '.join(map(str, end))})"
    alt = "Two rows of bars: above what each part adds, below the sum after it."
    show_figure(figures.draw_sum(writes, title), alt)


def plane(cloud: Float[Tensor, "points 2"], moved: float, stretched: float) -> Figure:
    """Points of the plane, moved and stretched, and what LayerNorm and RMSNorm leave of them."""
    points = stretched * cloud + moved
    layer, root = F.layer_norm(points, (2,), eps=1e-9), F.rms_norm(points, (2,), eps=1e-9)
    places = len({tuple(point) for point in layer.round(decimals=3).tolist()})
    angles = torch.atan2(root[:, 1], root[:, 0]).sort().values
    gaps = torch.cat([angles.diff(), 2 * torch.pi - (angles[-1:] - angles[:1])])
    covered = 360 - torch.rad2deg(gaps.max()).item()
    title = f"Moved by {moved:g}, stretched {stretched:g} times: LayerNorm {places} places, RMSNorm "
    title += "a circle" if covered > 330 else f"an arc of {covered:.0f}°"
    kept = {"after LayerNorm": layer, "after RMSNorm": root}
    return figures.draw_plane(points, kept, torch.atan2(cloud[:, 1], cloud[:, 0]), moved, title)


def timings(x: Float[Tensor, "tokens dim"], repeats: int = 5) -> None:
    """The median time of three norms for these tokens, on this machine, and of one matrix as wide as a token."""
    size, ours = x.shape[-1:], RMSNorm(x.shape[-1], 1e-5)
    matrix = torch.randn(*size, *size)
    ways = {
        "LayerNorm, PyTorch's function": lambda: F.layer_norm(x, size),
        "RMSNorm, PyTorch's function": lambda: F.rms_norm(x, size),
        "RMSNorm, the package's lines": lambda: ours(x),
        f"one matrix of {size[0]:,} × {size[0]:,}": lambda: x @ matrix,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():  # in turn, so that what else the machine does falls on all of them
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    rows = [[name, f"{1e3 * statistics.median(times):.1f} ms"] for name, times in seconds.items()]
    show_table(rows, [f"{len(x)} tokens, float32", f"median of {repeats}"])


def precision(naive: Callable[[Tensor], Tensor], right: Callable[[Tensor], Tensor]) -> None:
    """The RMS after a norm by the size of its numbers, for two functions of a vector."""
    vector = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([1.0, 3, 10, 30, 60, 100, 150, 200, 250, 300, 1000, 3000])
    after = {
        name: torch.tensor([rms(function((size * vector).half())) for size in sizes.tolist()])
        for name, function in (("squares in float16", naive), ("squares in float32", right))
    }
    lost = sizes[(after["squares in float16"] < 0.5).nonzero()[0, 0]]
    title = f"Squared in float16, a vector with an RMS of {lost:g} comes out as 0"
    alt = "Two lines of dots: 1 throughout for float32, falling to 0 for float16."
    show_figure(figures.draw_precision(sizes, after, title), alt)


class WithoutProduct(torch.nn.Module):
    """A feed-forward with two of its three matrices: it multiplies no two numbers that it has read."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        assert isinstance(part, FeedForward)
        self.w_gate, self.w_down = part.w_gate, part.w_down

    def forward(self, x: Tensor) -> Tensor:
        return self.w_down(F.silu(self.w_gate(x)))


def growth(draws: int = 5) -> None:
    """The size of the stream by depth, in stacks that have learned nothing: with norms, without, and without
    norms where the feed-forward has no product either; with weights that keep a vector's size, and smaller."""
    kinds = {
        (1.0, "with norms"): style.NORM,
        (1.0, "without"): style.WRONG,
        (1.0, "without, no product"): style.GATE,
        (0.5, "with norms"): style.NORM,
        (0.5, "without"): style.WRONG,
    }
    names = {1.0: "weights that keep a vector's size", 0.5: "weights half as large"}
    depths = {1.0: 24, 0.5: 60}
    panels, sizes = {name: {} for name in names.values()}, {}
    for (size, kind), colour in kinds.items():
        sizes[size, kind] = rows = [stack_sizes(seed, size, kind, depths[size]) for seed in range(draws)]
        end = torch.tensor(rows)[:, -1].median().item()
        label = f"{kind}: {end:.1f} times" if end < 1e3 else kind
        panels[names[size]][label] = colour, rows
    found = []
    for size in names:
        lost = [
            next((i for i, s in enumerate(row) if not math.isfinite(s)), None) for row in sizes[size, "without"]
        ]
        blocks = [block for block in lost if block is not None]
        last = f", the last at block {max(blocks)}" if blocks else ""
        found.append(f"{len(blocks)} of {draws} stacks overflow{last}")
    title = f"Without norms {found[0]}; with weights half as large {found[1]}"
    alt = (
        "The size of the stream by block, for large and for smaller weights: flat with norms, a wall without; "
        "a straight line where nothing is multiplied."
    )
    limit = float(torch.finfo(torch.float32).max)
    show_figure(figures.draw_overflow(panels, limit, title), alt)


def stack_sizes(seed: int, size: float, kind: str, n_layers: int = DEEP.n_layers) -> list[float]:
    """The RMS of the stream after the embedding and after each block of a random stack, from 32 random tokens."""
    ids = torch.randint(DEEP.vocab_size, (1, 32), generator=torch.Generator().manual_seed(seed))
    model = random_stack(seed, size, n_layers)
    for layer in model.layers if kind != "with norms" else ():
        layer.attention_norm = layer.ffn_norm = torch.nn.Identity()
        if kind != "without":
            layer.feed_forward = WithoutProduct(layer.get_submodule("feed_forward"))
    return [rms(x) for x in list(probe.residual_stream(model, ids).values())[::2]]


def bars(subject: Subject, text: str, block: int) -> None:
    """The last token of `text` as it comes to the attention of a block, divided by its RMS, and weighted."""
    name = f"layers.{block}.attention_norm"
    norm = subject.model.get_submodule(name)
    with probe.recording(subject.model, [name]) as record:
        subject.model.hidden(subject.ids(text))
    x, y = record.inputs[name][0, -1].float().cpu(), record.outputs[name][0, -1].float().cpu()
    assert isinstance(norm, RMSNorm)
    divided = x / (x.square().mean() + norm.eps).sqrt()
    loudest = int(x.abs().argmax())
    share = x[loudest].square() / x.square().sum()
    read = y[loudest].square() / y.square().sum()
    word = subject.words(text)[-1]
    title = (
        f"{word!r}: feature {loudest:,} is {share:.0%} of the squared length on arrival, {read:.0%} as it is read"
    )
    alt = "Four rows of bars, one bar per feature: the vector as it arrives, divided, the weight, and weighted."
    show_figure(figures.draw_bars([x, divided, y], norm.weight.float().cpu(), loudest, title), alt)


def squares(x: Sequence[float]) -> None:
    """A vector of a few numbers, their squares, and the mean of these."""
    values = torch.as_tensor(x, dtype=torch.float32)
    mean = values.square().mean()
    title = f"The mean of the squares is {mean:g}, its root is {mean.sqrt():g}"
    alt = "Bars of the numbers, and of their squares with a line at their mean."
    show_figure(figures.draw_squares(values, title), alt)


def scaled(x: Sequence[float], factors: Sequence[float] = (1, 10, -10)) -> None:
    """A vector and some multiples of it, each divided by its RMS."""
    vectors = [factor * torch.as_tensor(x, dtype=torch.float32) for factor in factors]
    sizes = [rms(vector) for vector in vectors]
    kept = len(
        {tuple((vector / size).abs().numpy().round(4)) for vector, size in zip(vectors, sizes, strict=True)}
    )
    found = "the same numbers, but for the sign" if kept == 1 else f"{kept} different vectors"
    title = f"Times {', '.join(f'{factor:g}' for factor in factors)}: after the division {found}"
    alt = "Bars of a vector and of two multiples of it; below, the same after the division."
    show_figure(figures.draw_scaled(vectors, title), alt)


def circle(points: Float[Tensor, "points 2"], weight: Sequence[float] = (1.0, 1.0)) -> None:
    """Points of the plane, divided by their RMS: all on a circle; and weighted: an ellipse."""
    divided = F.rms_norm(points, (2,), eps=1e-9)
    weighted = divided * torch.tensor(weight)
    turned = torch.rad2deg(F.cosine_similarity(points, weighted, dim=-1).min().acos())
    plain = tuple(weight) == (1.0, 1.0)
    title = f"Divided by its RMS each point is {divided.norm(dim=-1).mean():.2f} long and points where it did"
    if not plain:
        w0, w1 = weight
        title = f"The weights {w0:g} and {w1:g} make an ellipse of the circle: one point turns by {turned:.0f}°"
    alt = "Points of the plane, each with an arrow to where it ends: on a circle, or on an ellipse."
    show_figure(figures.draw_circle(points, divided, None if plain else weighted, title), alt)


def floor(eps: Sequence[float] = (0.0, 1e-6, 1e-5)) -> None:
    """The RMS of what a norm hands on, by the RMS of what it gets, for some values of eps."""
    sizes = torch.logspace(-5, 1, 61)
    after = {value: sizes / (sizes.square() + value).sqrt() for value in eps}
    at = math.sqrt(max(eps))
    title = (
        f"With eps {max(eps):g} a vector of RMS {at:.3f} leaves with {after_norm(at, max(eps)):.2f}, not with 1"
    )
    alt = "Curves of the RMS after the norm by the RMS before it: 1, falling where the vector is nearly silent."
    show_figure(figures.draw_floor(sizes, after, title), alt)


def after_norm(size: float, eps: float) -> float:
    """The RMS of a vector of RMS `size` after the norm."""
    return size / math.sqrt(size * size + eps)


def rms(x: Tensor) -> float:
    """The root of the mean square of all numbers."""
    return x.double().square().mean().sqrt().item()  # float64: the square of a large float32 is infinite
