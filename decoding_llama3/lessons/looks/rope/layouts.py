"""Part 4 - the two orders of the pairs, and how a wrong rotation is told from its symptoms."""

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.config import RopeScaling
from decoding_llama3.inference.generator import generate
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import rope_layouts as figures
from decoding_llama3.lessons.show import TALE, show_figure, show_table
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.rope import apply_rope, rope_frequencies, rope_rotation, scale_frequencies


def pair_layouts(head_dim: int = 8) -> None:
    """Both orders of the features of a small query, and the way from one to the other."""
    order = [*range(0, head_dim, 2), *range(1, head_dim, 2)]
    title = f"The same {head_dim // 2} pairs in two orders: feature 1 is row 1 here and row {order.index(1)} there"
    alt = "Two rows of coloured boxes, pairs joined by arcs: neighbours above, halves below, lines between them."
    show_figure(figures.draw_layouts(order, title), alt)


def rotate_by_halves(
    x: Float[Tensor, "batch heads seq head_dim"], rotation: Float[Tensor, "seq pairs 2"]
) -> Float[Tensor, "batch heads seq head_dim"]:
    """The rotation as Hugging Face's code does it: feature i is paired with i + head_dim / 2."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = rotation.unbind(-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).type_as(x)


def rotate_reversed(
    x: Float[Tensor, "batch heads seq head_dim"], rotation: Float[Tensor, "seq pairs 2"]
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Features in Hugging Face's order turned by code for neighbours: the opposite mistake, on our weights."""
    order = [*range(0, x.shape[-1], 2), *range(1, x.shape[-1], 2)]
    return apply_rope(x[..., order], rotation)


def rotate_backwards(
    x: Float[Tensor, "batch heads seq head_dim"], rotation: Float[Tensor, "seq pairs 2"]
) -> Float[Tensor, "batch heads seq head_dim"]:
    """The rotation the other way round."""
    return apply_rope(x, rotation * rotation.new_tensor([1.0, -1.0]))


def rotate_not(x: Tensor, rotation: Tensor) -> Tensor:
    """No rotation."""
    return x


def spoken(subject: Subject, text: str, n_tokens: int = 14) -> None:
    """How the model goes on with `text`, by its most probable tokens, with four rotations."""
    ways = {
        "order fits": apply_rope,
        "neighbours stored, halves turned": rotate_by_halves,
        "halves stored, neighbours turned": rotate_reversed,
        "not turned": rotate_not,
    }
    rows = []
    for name, rotate in ways.items():
        model = with_parts(subject.model, rotate=rotate)
        ids = list(islice(generate(model, subject.ids(text)[0], max_new_tokens=n_tokens), n_tokens))
        loss = probe.loss_of(model, subject.ids(TALE))
        rows.append([name, f"{loss:.1f}", " ".join(subject.tokenizer.decode(ids).split())])
    show_table(rows, ["queries and keys", "loss, the tale", f"after {text!r}"])


class Turning(NamedTuple):
    """A way to turn queries and keys; positions are counted from `first`."""

    rotate: Callable[[Tensor, Tensor], Tensor]
    frequencies: Float[Tensor, " pairs"]
    first: int = 0

    def turned(self, x: Float[Tensor, "1 draws 1 head_dim"], position: int) -> Float[Tensor, "1 draws 1 head_dim"]:
        """Each vector of `x` as it is at a position."""
        return self.rotate(x, rope_rotation(self.frequencies, torch.tensor([position + self.first])))


def mistakes(subject: Subject) -> dict[str, Turning]:
    """The model's own turning, under "nothing", and what is often done in place of it."""
    config, own = subject.model.config, probe.pair_frequencies(subject.model)
    scaling = RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=config.max_seq_len
    )
    return {
        "nothing": Turning(apply_rope, own),
        "order of the pairs": Turning(rotate_by_halves, own),
        "the same, counted from 1,000": Turning(rotate_by_halves, own, 1000),
        "turned the other way": Turning(rotate_backwards, own),
        "not turned": Turning(rotate_not, own),
        "exponent i, not 2i": Turning(apply_rope, own.sqrt()),
        "theta 50 times too large": Turning(apply_rope, rope_frequencies(config.head_dim, 50 * config.rope_theta)),
        "scaling that does not belong": Turning(apply_rope, scale_frequencies(own, scaling)),
        "positions counted from 1": Turning(apply_rope, own, 1),
    }


def fingerprints(subject: Subject, text: str, draws: int = 256) -> dict[str, dict[str, float]]:
    """What each common mistake changes: turned queries at three positions, the predictions by place.

    Of the queries, drawn by chance, the mean cosine with where they should point. After the second token the
    median over all tokens of the text in its place. Returns the values for each mistake, with its loss.
    """
    ids, cases, found = subject.ids(text), mistakes(subject), {}
    query = torch.randn(1, draws, 1, subject.model.config.head_dim, generator=torch.Generator().manual_seed(0))
    own = cases.pop("nothing")
    seconds = torch.stack((ids[0, :1].expand(len(ids[0].unique())), ids[0].unique()), dim=1)
    right_after = _predictions(subject, seconds, own)[:, 1]
    right = _predictions(subject, ids, own)[0]
    for name, way in {"nothing": own, **cases}.items():
        cosines = {
            f"{at}": F.cosine_similarity(way.turned(query, at), own.turned(query, at), dim=-1).mean().item()
            for at in (0, 1, 100)
        }
        predicted = _predictions(subject, ids, way)[0]
        after_two = (_predictions(subject, seconds, way)[:, 1] - right_after).abs().mean(dim=-1)
        low, high = after_two.quantile(0.05).item(), after_two.quantile(0.95).item()
        off = (predicted - right).abs().mean(dim=-1)
        parts = {"1st": off[:1], "2nd": after_two.median(), "3rd to 10th": off[2:10], "101st on": off[100:]}
        loss = {"2nd, low": low, "2nd, high": high, "loss": F.nll_loss(predicted[:-1], ids[0, 1:].cpu()).item()}
        found[name] = cosines | {place: part.mean().item() for place, part in parts.items()} | loss
    values = torch.tensor([list(found[name].values()) for name in cases])
    columns = list(found["nothing"])
    worst = max(cases, key=lambda name: round(found[name]["2nd"], 3))
    title = (
        f"No mistake shows after the first token; after the second, {worst!r} is off by "
        f"{found[worst]['2nd']:.2f} nats in the median of {len(seconds)} tokens"
    )
    if values[:, 3].max() > 5e-3:  # cannot be: the first token attends to itself alone
        title = f"After the first token the predictions are off by up to {values[:, 3].max():.2f} nats"
    alt = "A map with a row for each mistake: left, cosines of turned queries; right, errors of predictions."
    panels = (columns[:3], values[:, :3]), (columns[3:7], values[:, 3:7])
    show_figure(figures.draw_fingerprints(list(cases), *panels, title), alt)
    return found


def _predictions(subject: Subject, ids: Tensor, way: Turning) -> Float[Tensor, "batch seq vocab"]:
    """Log probabilities after each token, where every block turns in this way."""
    model = with_parts(subject.model, rotate=way.rotate)
    places = torch.arange(ids.shape[1], device=ids.device)
    rotation = rope_rotation(way.frequencies.to(ids.device), places + way.first)
    x = model.tok_embeddings(ids)
    for layer in model.layers:
        x = layer(x, places, rotation)
    return model.output(model.norm(x)).float().log_softmax(dim=-1).cpu()
