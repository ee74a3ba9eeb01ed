"""Part 1 - what is shown on the tour: one sentence through the whole model, and six words at its end."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import tokenizer_tour as figures
from decoding_llama3.lessons.fonts import token_label
from decoding_llama3.lessons.show import show_figure, token_strings
from decoding_llama3.lessons.subject import Subject, present

# A vocabulary of six words with a row of three numbers each, and the vector at the end of the stream.
ROWS = {
    " time": (1, 1, 0),
    " king": (1, 0, 0),
    " bird": (0, 1, 0),
    " the": (0, 1, 1),
    " gold": (1, -1, 1),
    ",": (-1, 0, -1),
}
VECTOR = (2, 1, -1)


def next_words(text: str, *subjects: Subject | None, most: int = 5) -> None:
    """The most probable tokens after `text`; a model that reads no BOS is asked with a line end before it, too."""
    panels, found = {}, []
    for name, ids, subject in _starts(text, *subjects):
        top = subject.model(ids)[0, -1].softmax(dim=-1).cpu().topk(most)
        likely = token_strings(top.indices, subject.tokenizer)
        panels[name] = top.values, likely
        told = " ".join(name.split())
        found.append(f"{told} gives {top.values[0]:.3f} to {token_label(likely[0])}")
    title = f"After '{_shortened(text)}' {', '.join(found)}"
    alt = "Bars for each model: the probabilities of the likeliest next tokens, and of all others together."
    show_figure(figures.draw_next(panels, title), alt)


def _starts(text: str, *subjects: Subject | None) -> Iterator[tuple[str, Int[Tensor, "1 seq"], Subject]]:
    """Each model with the ids that it reads, once more with a line end before them where it reads no BOS."""
    for subject in present(*subjects):
        ids = subject.ids(text)
        yield subject.name, ids, subject
        if not _reads_bos(subject):
            yield f"{subject.name}\nafter a line end", _begun(text, subject), subject


def _reads_bos(subject: Subject) -> bool:
    return subject.ids("").shape[1] > 0


def _begun(text: str, subject: Subject) -> Int[Tensor, "1 seq"]:
    """The ids of a text with BOS before them, or with a line end for a model that reads no BOS."""
    ids = subject.ids(text)
    return ids if _reads_bos(subject) else torch.cat([subject.ids("\n"), ids], dim=1)


def ride(text: str, subject: Subject) -> None:
    """The last tokens of `text` on their way through the model, and what each depth would say."""
    ids, model = subject.ids(text), subject.model
    count = min(4, ids.shape[1])
    stream = list(probe.residual_stream(model, ids).values())
    chances = [logits[0, -1].softmax(dim=-1).cpu() for logits in probe.logit_lens(model, ids)]
    answer = int(chances[-1].argmax())
    firsts = token_strings(torch.stack([p.argmax() for p in chances]), subject.tokenizer)
    guesses = [(first, p[answer].item()) for first, p in zip(firsts, chances, strict=True)]
    vectors = [figures.last_features(x[0], count) for x in (stream[0], stream[-1])]
    word = firsts[-1]
    title = f"From {guesses[0][1]:.3f} to {guesses[-1][1]:.3f}: in {len(guesses) - 1} blocks "
    title += f"'{_shortened(text)}' comes to {token_label(word)}"
    alt = (
        "Tokens ride on grey lines through ten numbered silhouettes, from their ids to the next word. "
        "Below, bars: how probable that word is after each block."
    )
    words = subject.words(text)[-count:]
    show_figure(figures.draw_ride(words, ids[0, -count:].tolist(), vectors, guesses, word, title), alt)


def six_logits() -> None:
    """Six rows times one vector: six logits."""
    logits = _six()
    words = list(ROWS)
    best = max(range(len(words)), key=logits.__getitem__)
    title = f"Six words, six logits: {token_label(words[best])} agrees best with x, {logits[best]:+d}"
    alt = "Six rows of three numbers, each multiplied with one vector; the sums as bars."
    show_figure(figures.draw_six_logits(ROWS, VECTOR, logits, title), alt)


def six_probabilities() -> None:
    """The six logits become probabilities."""
    logits = torch.tensor(_six(), dtype=torch.float32)
    p = logits.softmax(dim=-1)
    best, second = p.topk(2).values.tolist()
    title = (
        f"A logit that is higher by 1 is e times as probable: {best:.3f} is {best / second:.2f} times {second:.3f}"
    )
    alt = "Three panels of bars for six words: logits, exponentials, probabilities."
    show_figure(figures.draw_softmax(list(ROWS), logits, title), alt)


def six_losses() -> None:
    """The loss of each of the six words, had it come."""
    p = torch.tensor(_six(), dtype=torch.float32).softmax(dim=-1)
    low, high = -p.max().log().item(), -p.min().log().item()
    first, last = list(ROWS)[int(p.argmax())], list(ROWS)[int(p.argmin())]
    title = (
        f"The loss is -ln p: {low:.2f} nats if {token_label(first)} comes, {high:.2f} if {token_label(last)} does"
    )
    alt = "The falling curve of minus the logarithm of p, with a dot for each of six words; nats and bits."
    show_figure(figures.draw_losses(list(ROWS), p, title), alt)


def _six() -> list[int]:
    return [sum(u * x for u, x in zip(row, VECTOR, strict=True)) for row in ROWS.values()]


def surprises(text: str, *subjects: Subject | None) -> None:
    """The loss of each token of `text`; prints what each model expected where it loses most.

    A model that reads no BOS reads a line end in its place.
    """
    panels, told = {}, []
    for subject in present(*subjects):
        ids = _begun(text, subject)
        logits = subject.model(ids)
        losses = probe.next_token_losses(logits, ids)[0].float().cpu()
        words = token_strings(ids, subject.tokenizer)[1:]
        panels[subject.name] = words, losses
        top = int(losses.argmax())
        p = logits[0, top].softmax(dim=-1)
        (expected,) = token_strings(p.argmax()[None], subject.tokenizer)
        came = f"loses most at {token_label(words[top])}, {losses[top]:.2f} nats"
        told.append(f"{subject.name} {came}; it gave {p.max():.2f} to {token_label(expected)}")
    shared = _common_end([words for words, _ in panels.values()]) if len(panels) > 1 else 0
    means = [f"{name} {losses[-shared:].mean():.2f} nats" for name, (_, losses) in panels.items()]
    all_alike = all(len(words) == shared for words, _ in panels.values())
    over = f" over the last {shared} tokens" if shared and not all_alike else ""
    alt = "A bar for each token of the sentence: its loss in nats; the mean as a dashed line."
    show_figure(figures.draw_surprises(panels, f"Mean loss{over}: {', '.join(means)}", shared or None), alt)
    print("\n".join(told))


def _common_end(texts: Sequence[Sequence[str]]) -> int:
    """At how many tokens the shortest text ends, if it is the end of each of the others; else none."""
    shortest = min(texts, key=len)
    alike = all(list(text[-len(shortest) :]) == list(shortest) for text in texts)
    return len(shortest) if alike else 0


def _shortened(text: str, most: int = 24) -> str:
    """The end of a text, from a word on, for a title."""
    if len(text) <= most:
        return text
    return "..." + text[-most:].partition(" ")[2] if " " in text[-most:] else "..." + text[-most:]
