"""Part 3 - what is shown of gradients, and of the place of the norm."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from decoding_llama3.experiments import ablation
from decoding_llama3.lessons.figures import norm_gradients as figures
from decoding_llama3.lessons.looks.norm.mechanism import WithoutProduct, give_random_weights
from decoding_llama3.lessons.show import show_figure, show_table

STARTS = {"weights that keep a vector's size": 1.0, "weights half as large": 0.5}
PLACES = {"pre-norm": "RMSNorm", "post-norm": "post-norm"}  # what the lab calls them


def slope() -> None:
    """What a gradient is: the slope of the loss, at three weights, and the step against it."""
    title = "The gradient is the slope of the loss, -4, 0 and +4; the step goes against it"
    alt = "A parabola of the loss over one weight, with its tangent at three places, and arrows to the bottom."
    show_figure(figures.draw_slope((0.0, 2.0, 4.0), 0.3, title), alt)


def placements() -> None:
    """Where pre-norm and post-norm put the norms of a block."""
    title = "On the way back along the stream a block has 0 norms with pre-norm, 2 with post-norm"
    alt = "Two blocks: above the norms stand in the branches, below they stand on the stream, after each sum."
    show_figure(figures.draw_placements(("attention", "feed-forward"), title), alt)


def gradients(depths: Sequence[int] = (2, 6, 12, 24), draws: int = 3) -> dict[tuple[str, str, str], float]:
    """The gradient that reaches block 0 before any training, by depth, place of the norm and size of the weights.

    Drawn is that of w_gate. Returns how many times a gradient grows from the fewest blocks to the most, the
    median of the draws, by start, place and matrix ("w_gate", "wq").
    """
    matrices = ("feed_forward.w_gate", "attention.wq")
    panels, grown = {}, {}
    for start, size in STARTS.items():
        panels[start] = {}
        for place, norm in PLACES.items():
            found = torch.tensor(
                [[first_gradients(n, norm, seed, size, matrices) for n in depths] for seed in range(draws)]
            )
            panels[start][place] = found[..., 0].tolist()
            for i, matrix in enumerate(matrices):
                name = matrix.rpartition(".")[2]
                grown[start, place, name] = (found[:, -1, i] / found[:, 0, i]).median().item()
    large, small = STARTS
    found = [f"{grown[start, 'post-norm', 'w_gate']:.1f} times" for start in (large, small)]
    before = f"{grown[large, 'pre-norm', 'w_gate']:.1f} times"
    title = (
        f"From {depths[0]} to {depths[-1]} blocks the gradient grows {found[0]} with post-norm, {before} with "
        f"pre-norm; with half the weights {found[1]} with post-norm"
    )
    alt = "Two panels: the gradient of a matrix of block 0 by the number of blocks, for both places of the norm."
    show_figure(figures.draw_gradients(depths, panels, "gradient of w_gate in block 0", title), alt)
    return grown


WAYS = ("along the stream alone", "through the parts too", "through the parts, without the product")


def ways_back(depths: tuple[int, int] = (2, 24), draws: int = 3) -> dict[tuple[str, str], float]:
    """How many times w_gate's gradient grows with the depth, by the place of the norm and by the ways it may take:
    where a part is detached its slope is left out. The median of the draws, of weights that keep a vector's size.
    """
    grown = {}
    for place, norm in PLACES.items():
        for way in WAYS:
            found = torch.tensor(
                [
                    [first_gradients(n, norm, seed, 1.0, ["feed_forward.w_gate"], way)[0] for n in depths]
                    for seed in range(draws)
                ]
            )
            grown[place, way] = (found[:, 1] / found[:, 0]).median().item()
    rows = [[place, *(f"{grown[place, way]:.2g} times" for way in WAYS)] for place in PLACES]
    show_table(rows, [f"gradient of w_gate, {depths[1]} blocks against {depths[0]}", *WAYS])
    return grown


class Detached(torch.nn.Module):
    """A part whose output is added as ever, but hands no gradient back."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *inputs: Any) -> Tensor:
        return self.part(*inputs).detach()


def first_gradients(
    n_layers: int, norm: str, seed: int, size: float, names: Iterable[str], way: str = WAYS[1]
) -> list[float]:
    """The length of the gradient of these matrices of block 0, in a fresh model of the lab with one batch."""
    settings = dataclasses.replace(ablation.Settings(), n_layers=n_layers)
    model = ablation.build_variant(ablation.Variant(norm=norm), seed, vocab_size=96, settings=settings)
    generator = torch.Generator().manual_seed(seed)
    give_random_weights(model, size, generator)
    for i, layer in enumerate(model.layers):
        if way == WAYS[0] and i:
            for name in ("attention", "feed_forward"):
                setattr(layer, name, Detached(layer.get_submodule(name)))
        if way == WAYS[2]:
            layer.feed_forward = WithoutProduct(layer.get_submodule("feed_forward"))
    ids = torch.randint(96, (4, 65), generator=generator)
    with torch.enable_grad():
        F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    found = {name: weight.grad for name, weight in model.layers[0].named_parameters()}
    return [torch.linalg.vector_norm(found[f"{name}.weight"]).item() for name in names]
