"""Part 3 - what is shown where the norm is built."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments import ablation
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.inspect import probe
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


def random_stack(seed: int, config: LlamaConfig = DEEP) -> Transformer:
    """A model of random weights, each matrix such that it keeps the size of what it multiplies, on average."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            fan_in = 1 if name.startswith("tok_embeddings") else weight.shape[1]
            weight.normal_(std=fan_in**-0.5, generator=generator)
    return model


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


def slope() -> None:
    """What a gradient is: the slope of the loss, at three weights."""
    title = "The gradient is the slope of the loss: -4 on the left, 0 at the bottom, +4 on the right"
    alt = "A parabola of the loss over one weight, with its tangent at three places."
    show_figure(figures.draw_slope((0.0, 2.0, 4.0), title), alt)


def plane(cloud: Float[Tensor, "points 2"], moved: float, stretched: float) -> Figure:
    """Points of the plane, moved and stretched, and what LayerNorm and RMSNorm leave of them."""
    points = stretched * cloud + moved
    kept = F.layer_norm(points, (2,), eps=1e-9), F.rms_norm(points, (2,), eps=1e-9)
    places = len({tuple(point) for point in kept[0].round(decimals=3).tolist()})
    title = f"Moved by {moved:g}, stretched {stretched:g} times: LayerNorm leaves {places} places"
    return figures.draw_plane(points, *kept, title)


def timings(x: Float[Tensor, "tokens dim"], repeats: int = 15) -> None:
    """The median time of three norms for these tokens, on this machine."""
    size, ours = x.shape[-1:], RMSNorm(x.shape[-1], 1e-5)
    ways = {
        "LayerNorm, one kernel": lambda: F.layer_norm(x, size),
        "RMSNorm, one kernel": lambda: F.rms_norm(x, size),
        "RMSNorm, the package's lines": lambda: ours(x),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():  # in turn, so that what else the machine does falls on all of them
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    rows = [[name, f"{1e3 * statistics.median(times):.2f} ms"] for name, times in seconds.items()]
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
    title = f"With squares in float16 nothing is left of a vector whose numbers are about {lost:g}"
    alt = "Two lines of dots: 1 throughout for float32, falling to 0 for float16."
    show_figure(figures.draw_precision(sizes, after, title), alt)


class WithoutProduct(torch.nn.Module):
    """A feed-forward with two of its three matrices: nothing in it is multiplied with anything that it read."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        assert isinstance(part, FeedForward)
        self.w_up, self.w_down = part.w_up, part.w_down

    def forward(self, x: Tensor) -> Tensor:
        return self.w_down(self.w_up(x))


def growth(draws: int = 5) -> None:
    """The size of the stream by depth, in stacks that have learned nothing: with norms, without, and without
    norms where the feed-forward multiplies nothing either."""
    sizes: dict[str, list[list[float]]] = {"with norms": [], "without": [], "without, and nothing multiplied": []}
    for seed in range(draws):
        ids = torch.randint(DEEP.vocab_size, (1, 32), generator=torch.Generator().manual_seed(seed))
        for kind, rows in sizes.items():
            model = random_stack(seed)
            for layer in model.layers if kind != "with norms" else ():
                layer.attention_norm = layer.ffn_norm = torch.nn.Identity()
                if kind != "without":
                    layer.feed_forward = WithoutProduct(layer.get_submodule("feed_forward"))
            rows.append([rms(x) for x in list(probe.residual_stream(model, ids).values())[::2]])
    grown = torch.tensor(sizes["with norms"])[:, -1].median()
    lost = [next(i for i, size in enumerate(row) if not math.isfinite(size)) for row in sizes["without"]]
    title = (
        f"Without norms all {draws} stacks overflow by block {max(lost)}; with norms they grow {grown:.1f} times"
    )
    alt = "The size of the stream by block: flat with norms, a wall without, a straight line without products."
    show_figure(figures.draw_overflow(sizes, title), alt)


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
    title = f"{word!r}: feature {loudest:,} is {share:.0%} of what arrives and {read:.0%} of what is read"
    alt = "Three rows of bars, one bar per feature: as the vector arrives, divided by its RMS, and weighted."
    show_figure(figures.draw_bars([x, divided, y], loudest, title), alt)


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
    found = "the same numbers, up to the sign" if kept == 1 else f"{kept} different vectors"
    title = f"RMS {', '.join(f'{size:g}' for size in sizes)}: divided by it, {found}"
    alt = "Bars of a vector and of two multiples of it; below, the same after the division."
    show_figure(figures.draw_scaled(vectors, title), alt)


def circle(points: Float[Tensor, "points 2"], weight: Sequence[float] = (1.0, 1.0)) -> None:
    """Points of the plane, divided by their RMS: all on a circle; and weighted: an ellipse."""
    divided = F.rms_norm(points, (2,), eps=1e-9)
    weighted = divided * torch.tensor(weight)
    cosine = F.cosine_similarity(points, weighted, dim=-1).min()
    plain = tuple(weight) == (1.0, 1.0)
    title = f"Divided by its RMS each point is {divided.norm(dim=-1).mean():.2f} long and points where it did"
    if not plain:
        w0, w1 = weight
        title = (
            f"The weights {w0:g} and {w1:g} make an ellipse of it: directions turn, to a cosine of {cosine:.2f}"
        )
    alt = "Points of the plane with arrows to where they end: on a circle, or on an ellipse."
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


def gradients(depths: Sequence[int] = (2, 6, 12, 24), draws: int = 3) -> dict[str, float]:
    """The gradient that reaches block 0 before any training, with norms before the parts and after the sums.

    Returns how many times w_gate's grows from the fewest blocks to the most, by the place of the norm.
    """
    matrices = {"feed-forward, w_gate": "feed_forward.w_gate", "attention, wq": "attention.wq"}
    sizes = {label: {"before the parts": [], "after the sums": []} for label in matrices}
    for n_layers in depths:
        for kind, norm in (("before the parts", "RMSNorm"), ("after the sums", "post-norm")):
            found = torch.tensor(
                [first_gradients(n_layers, norm, seed, matrices.values()) for seed in range(draws)]
            )
            for label, size in zip(matrices, found.median(dim=0).values.tolist(), strict=True):
                sizes[label][kind].append(size)
    gate, query = ({kind: rows[-1] / rows[0] for kind, rows in by_norm.items()} for by_norm in sizes.values())
    grown = [
        f"{g['after the sums']:.1f} times after the sums, {g['before the parts']:.1f} before the parts"
        for g in (gate, query)
    ]
    title = f"From 2 to {depths[-1]} blocks w_gate's gradient grows {grown[0]}; wq's {grown[1]}"
    alt = "Two panels: the gradient of a matrix of block 0 by the number of blocks, for both places of the norm."
    show_figure(figures.draw_gradients(depths, sizes, title), alt)
    return gate


def first_gradients(n_layers: int, norm: str, seed: int, names: Iterable[str]) -> list[float]:
    """The length of the gradient of these matrices of block 0, in a fresh model of the lab with one batch."""
    settings = dataclasses.replace(ablation.Settings(), n_layers=n_layers)
    model = ablation.build_variant(ablation.Variant(norm=norm), seed, vocab_size=96, settings=settings)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data.normal_(std=weight.shape[1] ** -0.5, generator=generator)
    ids = torch.randint(96, (16, 65), generator=generator)
    with torch.enable_grad():
        F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    gradients = {name: weight.grad for name, weight in model.layers[0].named_parameters()}
    return [torch.linalg.vector_norm(gradients[f"{name}.weight"]).item() for name in names]


def rms(x: Tensor) -> float:
    """The root of the mean square of all numbers."""
    return x.double().square().mean().sqrt().item()  # float64: the square of a large float32 is infinite
