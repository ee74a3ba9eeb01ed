"""Part 1 - what is shown where the tokenizer is built."""

import collections
import itertools
import math
import random
from collections.abc import Mapping, Sequence

import regex
import torch
from matplotlib.figure import Figure

from decoding_llama3.lessons.figures import tokenizer as figures
from decoding_llama3.lessons.fonts import token_label
from decoding_llama3.lessons.looks.tokenizer.lists import pieces_by
from decoding_llama3.lessons.show import show_figure
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.tokenizer import SPLIT_PATTERN, Tokenizer

RULES = (  # the alternatives of the split pattern, in words and in their order
    "endings such as 's",
    "letters; one sign or space may come before",
    "digits, three at most",
    "signs; a space may come before, line ends after",
    "line ends; spaces may come before",
    "spaces, all but the last one before a word",
    "other spaces",
)
Pieces = list[bytes]


def three_cuts(text: str, tokenizer: Tokenizer) -> None:
    """A text as bytes, as words and as tokens with their ids."""
    ids = tokenizer.encode(text)
    words = regex.findall(r"\s*\S+", text)
    rows = {
        "bytes": [bytes([byte]) for byte in text.encode()],
        "words": [word.encode() for word in words],
        "tokens": [tokenizer.token_bytes(token) for token in ids],
    }
    title = f"The same text: {len(rows['bytes'])} bytes, {len(words)} words, {len(ids)} tokens"
    alt = "A sentence in three rows of boxes: cut into bytes, into words, and into tokens with their ids."
    show_figure(figures.draw_rows(rows, ids, title), alt)


def other_cuts(text: str, subject: Subject, draws: int = 20) -> None:
    """What a text costs a model as its tokenizer cuts it, in random order, cut otherwise, and in bytes."""
    tokenizer = subject.tokenizer
    ids = tokenizer.encode(text)
    byte_ids = {tokenizer.token_bytes(token): token for token in range(256)}
    ways = {
        "cut as it was learned": [ids],
        "the same tokens in random order": [_shuffled(ids, seed) for seed in range(draws)],
        "each token cut into two of its tokens": [_halved(ids, tokenizer, seed) for seed in range(draws)],
        "in bytes": [[byte_ids[bytes([byte])] for byte in text.encode()]],
    }
    bits = {name: [_bits(subject, way) / len(text) for way in cuts] for name, cuts in ways.items()}
    whole, shuffled, halved, byte_wise = (sorted(values)[len(values) // 2] for values in bits.values())
    title = (
        f"Bits per character: learned {whole:.1f}, shuffled {shuffled:.1f}, "
        f"cut otherwise {halved:.1f}, bytes {byte_wise:.1f}"
    )
    alt = "Rows of dots: bits per character of one text, given to the model in four ways."
    show_figure(figures.draw_other_cuts(bits, title), alt)
    first, second = _halves(subject, ways["each token cut into two of its tokens"], ids)
    if first:
        print(f"bits per first half {first:.1f}, per second half {second:.1f}")
    counted = [[_bits(subject, cut) / len(cut) for cut in cuts] for cuts in ways.values()]
    each = [sum(values) / len(values) for values in counted]
    print(
        "bits per token: learned {:.1f}, shuffled {:.1f}, cut otherwise {:.1f}, bytes {:.1f};".format(*each),
        end=" ",
    )
    print(f"a token drawn blindly {math.log2(tokenizer.n_vocab):.0f}")


def _halves(subject: Subject, cuts: Sequence[Sequence[int]], ids: Sequence[int]) -> tuple[float, float]:
    """Mean bits of a first and of a second half, over all cuts, where a token was cut in two."""
    tokenizer = subject.tokenizer
    wholes = [tokenizer.token_bytes(token) for token in ids]
    bits: tuple[list[float], list[float]] = [], []
    for cut in cuts:
        costs, at = _bits_each(subject, cut), 0
        for whole in wholes:
            halved = tokenizer.token_bytes(cut[at]) != whole
            if halved:
                bits[0].append(costs[at])
                bits[1].append(costs[at + 1])
            at += 1 + halved
    first, second = (sum(costs) / max(1, len(costs)) for costs in bits)
    return first, second


def _shuffled(ids: Sequence[int], seed: int) -> list[int]:
    return random.Random(seed).sample(ids, len(ids))


def _halved(ids: Sequence[int], tokenizer: Tokenizer, seed: int) -> list[int]:
    """Each token as two others, drawn from all pairs of tokens that together have its bytes."""
    chance = random.Random(seed)
    known = {tokenizer.token_bytes(token): token for token in range(tokenizer.bos_id)}
    halved = []
    for token in ids:
        whole = tokenizer.token_bytes(token)
        pairs = [(whole[:i], whole[i:]) for i in range(1, len(whole))]
        possible = [pair for pair in pairs if known.keys() >= set(pair)]
        halved += [known[half] for half in chance.choice(possible)] if possible else [token]
    return halved


def _bits(subject: Subject, ids: Sequence[int]) -> float:
    """How much a row of ids surprises the model, in bits, all tokens together."""
    return sum(_bits_each(subject, ids))


def _bits_each(subject: Subject, ids: Sequence[int]) -> list[float]:
    device = subject.model.norm.weight.device
    row = torch.tensor([[subject.tokenizer.bos_id, *ids]], device=device)
    logs = subject.model(row)[0, :-1].log_softmax(dim=-1).cpu()
    return (-logs[range(len(ids)), list(ids)] / math.log(2)).tolist()


def counting(text: str, rounds: int = 3, most: int = 4) -> None:
    """The most frequent pair of neighbours is found and joined, some rounds of it."""
    words = [[bytes([byte]) for byte in f" {word}".encode()] for word in text.split()]
    shown = []
    for _ in range(rounds):
        counts = collections.Counter(pair for pieces in words for pair in itertools.pairwise(pieces))
        shown.append((words, [(*pair, count) for pair, count in counts.most_common(most)]))
        words = [_joined(pieces, shown[-1][1][0][:2]) for pieces in words]
    found = [token_label(b"".join(pairs[0][:2])) for _, pairs in shown]
    counts = [pairs[0][2] for _, pairs in shown]
    title = f"Joined, one after the other: {', '.join(found)}, seen {', '.join(map(str, counts))} times"
    alt = "In each row the words as boxes of pieces, and the pairs of neighbours by how often they come."
    show_figure(figures.draw_counting(shown, title), alt)


def _joined(pieces: Pieces, pair: tuple[bytes, bytes]) -> Pieces:
    joined: Pieces = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def bricks(word: bytes, ranks: Mapping[bytes, int]) -> None:
    """A word from its bytes to its token, one merge a row."""
    steps = [[bytes([byte]) for byte in word]]
    while True:
        pieces = steps[-1]
        pairs = [(ranks[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(pieces)) if a + b in ranks]
        if not pairs:
            break
        i = min(pairs)[1]
        steps.append([*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]])
    left = f"{len(steps[-1])} token{'s' if len(steps[-1]) > 1 else ''}"
    title = f"{len(steps) - 1} merges, the lowest rank first, make {left} of {token_label(word)}"
    alt = "A word as a wall of bricks: in each row two bricks become one, until none can be joined."
    show_figure(figures.draw_merges(steps, ranks, title), alt)


def split_by_rules(text: str) -> None:
    """The pieces of a text, each by the rule of the pattern that took it."""
    alternatives = _alternatives()
    pieces = []
    for found in regex.finditer(SPLIT_PATTERN, text):
        tries = (regex.compile(rule).match(text, found.start()) for rule in alternatives)
        at = next(i for i, tried in enumerate(tries) if tried and tried.end() > found.start())
        pieces.append((found.group(), at))
    used = len({rule for _, rule in pieces})
    title = f"{used} rules split the text into {len(pieces)} pieces; merges never cross a border"
    alt = "A text as coloured boxes, a colour for each rule of the split pattern; below, the rules."
    rules = [(rule, words) for rule, words in zip(alternatives, RULES, strict=True)]
    show_figure(figures.draw_rules(pieces, rules, title), alt)


def _alternatives() -> list[str]:
    """The alternatives of the pattern, in their order; the first has bars of its own."""
    endings, rest = SPLIT_PATTERN.split(")|", maxsplit=1)
    return [f"{endings})", *rest.split("|")]


def conversation(ids: Sequence[int], tokenizer: Tokenizer) -> None:
    """The ids of a chat, a row per message: special tokens, text that the program put in, text that was typed."""
    special = set(tokenizer.special_ids.values())
    start, end = (tokenizer.special_ids[f"<|{name}_header_id|>"] for name in ("start", "end"))
    rows: list[list[tuple[str, str]]] = [[]]
    header, line_ends = False, 0  # in a header; line ends still to come after it
    for token in ids:
        if token == start and any(kind != "special" for _, kind in rows[-1]):
            rows.append([])
        text = tokenizer.token_bytes(token).decode(errors="replace")
        kind = "special" if token in special else "put in" if header or line_ends > 0 else "typed"
        line_ends = 2 if token == end else line_ends - len(text)
        header = token == start or (header and token != end)
        rows[-1].append((text, kind))
    count = sum(token in special for token in ids)
    title = f"Of {len(ids)} tokens {count} are special, and the program put in all of them"
    alt = "A chat as rows of boxes, a message a row: special tokens black, the program's text grey, typed blue."
    show_figure(figures.draw_conversation(rows, title), alt)


def cut_by(text: str, tokenizer: Tokenizer, *sizes: int) -> Figure:
    """A text cut by the first pieces of a list, a row for each number of them."""
    cuts = {size: _cut(text, tokenizer, size) for size in sizes}
    counts = {size: len(cut) for size, cut in cuts.items()}
    title = "; ".join(f"{size:,} pieces: {count} tokens" for size, count in counts.items())
    if len(sizes) > 2:
        title = f"From {counts[sizes[0]]} to {counts[sizes[-1]]} tokens, with {sizes[0]:,} to {sizes[-1]:,} pieces"
    return figures.draw_cuts(cuts, title)


def _cut(text: str, tokenizer: Tokenizer, size: int) -> Pieces:
    ranks = {tokenizer.token_bytes(token): token for token in range(size)}
    return pieces_by(text, ranks)
