"""Part 4 - what is shown where the rotation is built."""

import cmath
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import rope as figures
from decoding_llama3.lessons.show import show_figure, show_table
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.rope import apply_rope, rope_frequencies, rope_rotation

# Words by hand: features of the stream, and what a query asks for and a key offers.
FEATURES, WISHES = ("thing", "quality", "article"), ("description?", "article?")
WQ = torch.tensor([[1.5, -1.0, 0.0], [0.5, 0.0, 0.0]])
WK = torch.tensor([[-0.5, 1.0, 0.0], [0.0, 0.0, 2.0]])
BIRD = torch.tensor([2.0, 0.0, 0.0])
WORDS = ("a", "fox", "saw", "a", "golden")
VECTORS = torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 0.0], [0.0, -1.0, -0.5], [0.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
KEYS = VECTORS @ WK.T

QUERY, KEY = 0.6 + 1.1j, -0.8 + 0.7j  # one pair of features of each, as arrows of the plane
SIX_Q = torch.tensor([1.0, -0.5, 0.8, 0.3, -0.6, 0.9])
SIX_K = torch.tensor([0.7, 0.4, -0.3, 1.0, 0.5, -0.2])


def query_by_hand() -> None:
    """A query of two numbers, made of three by a matrix."""
    q = (WQ @ BIRD).tolist()
    title = f"The query of 'bird' is ({q[0]:g}, {q[1]:g}): it wants a description more than an article"
    alt = "Three grids of numbers: a matrix of two rows, a vector of three numbers, a query of two."
    figures_of = (FEATURES, WISHES, "'bird'")
    show_figure(figures.draw_query_by_hand(WQ, BIRD, figures_of, title), alt)


def keys_by_hand() -> None:
    """The keys of five words, as a table, and the scores of that query with them."""
    rows = [
        [repr(word), *(_tuple(x) for x in vectors)] for word, *vectors in zip(WORDS, VECTORS, KEYS, strict=True)
    ]
    header = ["word", f"x: {', '.join(FEATURES)}", f"its key, wk x, with wk = ({', '.join(map(_tuple, WK))})"]
    show_table(rows, header)
    query = WQ @ BIRD
    scores = (KEYS @ query).tolist()
    best = max(range(len(WORDS)), key=scores.__getitem__)
    title = f"{WORDS[best]!r} fits best, {scores[best]:g}; both 'a' have the score {scores[0]:g}, near or far"
    alt = "Left, the query and the keys as arrows of the plane; right, a bar for each score with its sum."
    show_figure(figures.draw_scores_by_hand(query, KEYS, [f"'{word}'" for word in WORDS], title), alt)


def _tuple(numbers: Tensor) -> str:
    return f"({', '.join(f'{number + 0:g}' for number in numbers.tolist())})"


def _integers(x: Tensor, m: int) -> Tensor:
    return x + torch.tensor([float(m)] + 5 * [0.0])


def _binary(x: Tensor, m: int) -> Tensor:
    return x + torch.tensor([float(m >> i & 1) for i in range(6)])


def _sines(x: Tensor, m: int) -> Tensor:
    angles = m * rope_frequencies(6, 1000.0)
    return x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten()


def _turned(x: Tensor, m: int) -> Tensor:
    return apply_rope(x[None, None, None], rope_rotation(rope_frequencies(6, 1000.0), torch.tensor([m])))[0, 0, 0]


ATTEMPTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "integers": _integers,
    "binary": _binary,
    "sines": _sines,
    "turned": _turned,
}


def attempts(positions: int = 64, distance: int = 3) -> None:
    """Four ways to tell a word its position, against three wishes: a table, and what each looks like."""
    marks, changes = {}, {}
    rows = [["1. length: longest, divided by the word's own"], ["2. step: largest, divided by smallest"]]
    rows.append([f"3. score at distance {distance}: most that it changes from position 0"])
    rows.append(["(its lowest and its highest value)"])
    for name, place in ATTEMPTS.items():
        words = torch.stack([place(SIX_Q, m) for m in range(positions)])
        added = name != "turned"
        marks[f"{name}\n{'what is added' if added else 'the word itself'}"] = words - SIX_Q if added else words
        keys = torch.stack([place(SIX_K, m) for m in range(positions)])
        scores = (words[distance:] * keys[:-distance]).sum(-1)
        changes[name] = scores - scores[0]
        steps = words.diff(dim=0).norm(dim=-1)
        length, step = words.norm(dim=-1).max() / SIX_Q.norm(), steps.max() / steps.min()
        change = changes[name].abs().max()
        for row, value, kept in zip(rows[:3], (length, step, change), (1.0, 1.0, 0.0), strict=True):
            mark = "✓" if abs(value.item() - kept) < 1e-3 else "✗"
            row.append(f"{_short(value.item())} {mark}")
        rows[-1].append(f"{_short(scores.min().item())} to {_short(scores.max().item())}")
    show_table(rows, ["", *ATTEMPTS])
    found = ", ".join(f"{_short(x.abs().max().item())} ({name})" for name, x in changes.items())
    title = (
        f"Both words moved along, at distance {distance}: the score moves from its first value by up to {found}"
    )
    alt = (
        "Above, six numbers for each of 64 positions in four ways; below, how a score changes as both words move."
    )
    by_title = dict(zip(marks, changes.values(), strict=True))
    show_figure(figures.draw_attempts(marks, by_title, title), alt)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"


def _arrows(m: int, n: int, frequency: float = 1.0) -> figures.FourArrows:
    turned = (arrow * cmath.exp(1j * at * frequency) for arrow, at in ((QUERY, m), (KEY, n)))
    query, key, turned_query, turned_key = ((arrow.real, arrow.imag) for arrow in (QUERY, KEY, *turned))
    return query, key, turned_query, turned_key


def _score(distance: float, frequency: float = 1.0) -> float:
    return (QUERY * cmath.exp(1j * distance * frequency) * KEY.conjugate()).real


def wedges(places: Sequence[tuple[int, int]] = ((7, 0), (107, 100), (4007, 4000))) -> None:
    """A query and a key that both move along, and the wedge between their arrows."""
    panels, angles, scores = {}, set(), set()
    for m, n in places:
        arrows = _arrows(m, n)
        turned_query, turned_key = (complex(*arrow) for arrow in arrows[2:])
        product = turned_query * turned_key.conjugate()
        angles.add(f"{abs(cmath.phase(product)) * 180 / cmath.pi:.0f}°")
        scores.add(f"{product.real:.2f}")
        panels[f"query at {m:,}, key at {n:,}"] = arrows
    moved = " or ".join(f"{n - places[0][1]:,}" for _, n in places[1:])
    title = (
        f"Moved by {moved}, both arrows turn; the wedge stays {' / '.join(sorted(angles))}, "
        f"the score {' / '.join(sorted(scores))}"
    )
    alt = "Three circles with a blue and an orange arrow, differently turned; the wedge between them is the same."
    show_figure(figures.draw_wedges(panels, title), alt)


def wedge_at(m: int, n: int) -> Figure:
    """The two arrows at positions of the reader's choice, and the score by their distance."""
    scores = torch.tensor([_score(distance) for distance in torch.linspace(0, 24, 241).tolist()])
    title = f"Query at {m:,}, key at {n:,}: distance {m - n}, score {_score(m - n):.2f}"
    return figures.draw_wedge_and_score(_arrows(m, n), scores, m - n, title)


def three_distances(*distances: int) -> None:
    """The two arrows at some distances, and where these lie on the curve of the score."""
    scores = torch.tensor([_score(distance) for distance in torch.linspace(0, 24, 241).tolist()])
    found = ", ".join(f"{_score(distance):.2f} at {distance}" for distance in distances)
    alt = (
        "Above, three circles with two arrows and a wedge; below, a wave, the score by distance, with three dots."
    )
    panels = {distance: _arrows(distance, 0) for distance in distances}
    show_figure(figures.draw_three_distances(panels, scores, f"The score by distance: {found}"), alt)


def clock(subject: Subject) -> None:
    """Four of the pairs as hands of a clock, at positions 0 to 5."""
    frequencies = probe.pair_frequencies(subject.model)
    turns = (2 * torch.pi / frequencies).tolist()
    last = len(turns) - 1
    shown = [0, last // 4, last // 2, last]
    angles = torch.outer(torch.arange(6.0), frequencies[shown])
    names = [f"pair {i}: a turn in\n{turns[i]:,.0f} tokens" for i in shown]
    title = f"Pair 0 turns once in {turns[0]:.0f} tokens, pair {last} in {turns[last]:,.0f}"
    alt = "Four dials, one for each pair: hands at positions 0 to 5, far apart in the first, together in the last."
    show_figure(figures.draw_clock(torch.stack((angles.cos(), angles.sin()), dim=-1), names, title), alt)


def phase_map(angles: Float[Tensor, "positions pairs"], at: int) -> None:
    """The angle of every pair at every position."""
    turns = (angles[-1] / (2 * torch.pi)).tolist()
    last = len(turns) - 1
    title = (
        f"Over {len(angles)} positions pair 0 turns {turns[0]:.0f} times, "
        f"pair {last // 2} {turns[last // 2]:.1f} times, pair {last} {turns[last]:.2f} times"
    )
    alt = "A map of positions by pairs: stripes in the fast pairs on top, one colour in the slow ones below."
    show_figure(figures.draw_phase_map(angles, at, title), alt)


def dials(
    before: tuple[Float[Tensor, " head_dim"], Float[Tensor, " head_dim"]],
    after: tuple[Float[Tensor, " head_dim"], Float[Tensor, " head_dim"]],
    who: str,
) -> None:
    """A query and a key pair by pair, before and after the turn, with what each pair gives to the score."""
    pairs = [(q.unflatten(-1, (-1, 2)), k.unflatten(-1, (-1, 2))) for q, k in (before, after)]
    products = [(q * k).sum(-1).tolist() for q, k in pairs]
    totals = [sum(values) for values in products]
    title = f"{who}: their score is {totals[0]:+.0f} before the turn and {totals[1]:+.0f} after it"
    alt = "A dial for each pair of features: the query's and the key's arrow, pale before the turn, full after it."
    show_figure(figures.draw_dials(pairs[0], pairs[1], (products[0], products[1]), title), alt)
