"""Part 1 - what is shown in its second half: the figures of an announcement, with the sources they come from."""

import dataclasses
import itertools
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments import snapshots
from decoding_llama3.inference.data import data_directory
from decoding_llama3.json_files import read_json
from decoding_llama3.lessons.figures import announcement as figures
from decoding_llama3.lessons.show import show_figure, show_table
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.transformer import Transformer

# Per cent solved by Llama 3 8B, Gemma 7B, Mistral 7B, measured by Meta: launch post and model card, April 2024.
MEASURED = {
    "tuned": {  # shots: 5, 0, 0, 8 with reasoning, 4 with reasoning
        "MMLU": (68.4, 53.3, 58.4),
        "GPQA": (34.2, 21.4, 26.3),
        "HumanEval": (62.2, 30.5, 36.6),
        "GSM-8K": (79.6, 30.6, 39.9),
        "MATH": (30.0, 12.2, 11.0),
    },
    "base": {  # shots: 5, 3 to 5, 3 with reasoning, 25, 3
        "MMLU": (66.6, 64.4, 63.9),
        "AGIEval": (45.9, 44.9, 44.0),
        "BBH": (61.1, 59.0, 56.0),
        "ARC-C": (78.6, 79.1, 78.7),
        "DROP": (58.4, 56.3, 54.4),
    },
}
# How many questions a test has: the papers of MMLU, BBH, ARC and DROP.
QUESTIONS = {"MMLU": 14_042, "BBH": 6_511, "ARC-C": 1_172, "DROP": 9_536}
# Per cent of the 164 problems: Meta's model card, OpenAI's report on GPT-4, Anthropic's card of Claude 3.
HUMAN_EVAL = {
    "GPT-3.5": 48.1,
    "GPT-4": 67.0,
    "Gemini 1.0 Pro": 67.7,
    "Claude 3 Haiku": 75.9,
    "Claude 3 Opus": 84.9,
    "Llama 3 8B": 62.2,
    "Llama 3 70B": 81.7,
}
# Chatbot Arena, the overall board on 1 May 2024: a stored snapshot (openlm.ai), without intervals.
ARENA = {
    "GPT-4-Turbo (April 2024)": 1259,
    "Claude 3 Opus": 1251,
    "Llama 3 70B": 1210,
    "Bard (Gemini Pro)": 1209,
    "Claude 3 Sonnet": 1201,
    "GPT-4-0314": 1190,
    "GPT-4-0613": 1165,
    "Mistral Large": 1157,
    "Llama 3 8B": 1153,
    "Mistral Medium": 1148,
    "Gemini Pro (API)": 1136,
}
READ = 15e12  # tokens, of the 8B and of the 70B
FITTED = 500e9  # tokens; the runs to which Hoffmann et al. fitted their law read no more
# Chinchilla's law, loss = E + A / n**alpha + B / tokens**beta, as Besiroglu et al. fitted it again in 2024.
E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658


def family() -> dict[str, tuple[int, int, LlamaConfig]]:
    """A table of five Llamas; returns the parameters of each, those of one block, and its configuration."""
    found = {}
    for name in ("llama2-7b", "llama2-13b", "llama2-70b", "llama3-8b", "llama3-70b"):
        c = LlamaConfig.from_preset(name)
        block = 2 * c.dim * c.head_dim * (c.n_heads + c.n_kv_heads) + 3 * c.dim * c.hidden_dim + 2 * c.dim
        found[name] = c.n_params, block, c
    rows = [
        [name, n, block, f"{c.n_heads} on {c.n_kv_heads}", c.vocab_size, f"{c.rope_theta:,.0f}", c.max_seq_len]
        for name, (n, block, c) in found.items()
    ]
    show_table(
        rows, ["model", "parameters", "per block", "queries on keys", "vocabulary", "RoPE theta", "context"]
    )
    return found


def steps_to_the_8b() -> dict[str, int]:
    """From Llama 2 7B to Llama 3 8B, one change after the other; returns what each changes."""
    llama2 = LlamaConfig.from_preset("llama2-7b")
    shared = dataclasses.replace(llama2, n_kv_heads=8)
    wider = dataclasses.replace(shared, hidden_dim=14_336)
    way = {
        "Llama 2 7B": llama2,
        "shared keys": shared,
        "wider feed-forward": wider,
        "vocabulary": dataclasses.replace(wider, vocab_size=128_256),
    }
    sizes = [config.n_params for config in way.values()]
    changes = [sizes[0], *(after - before for before, after in itertools.pairwise(sizes))]
    saved, added = -changes[1] / 1e6, changes[2] / 1e6
    title = f"Shared keys save {saved:,.0f} million, the wider feed-forward adds {added:,.0f} million"
    alt = "From Llama 2 7B a step down for shared keys, two steps up, to Llama 3 8B."
    show_figure(figures.draw_waterfall(list(zip(way, changes, strict=True)), title), alt)
    return dict(zip(way, changes, strict=True))


def gaps() -> dict[str, dict[str, float]]:
    """By how many points the 8B is ahead of the better of Gemma 7B and Mistral 7B, tuned and as base models."""
    found = {
        kind: {test: ours - max(others) for test, (ours, *others) in table.items()}
        for kind, table in MEASURED.items()
    }
    tuned, base = ((min(row.values()), max(row.values())) for row in found.values())
    title = (
        f"Ahead by {tuned[0]:.0f} to {tuned[1]:.0f} points where tuned, "
        f"by {base[0]:.1f} to {base[1]:.1f} as base model"
    )
    alt = "Two rows of dots on one axis of points: tuned, far right of zero; as base models, around it."
    show_figure(figures.draw_gaps(found, title), alt)
    return found


def points_by_chance(test: str) -> float:
    """By how many points two equal models may differ, in 95 of 100 drawings of the base models' questions."""
    share = MEASURED["base"][test][0] / 100
    return 100 * 1.96 * math.sqrt(2 * share * (1 - share) / QUESTIONS[test])


def chance_to_win(points: float) -> float:
    """How often the better of two wins a comparison, by its lead on the arena's board."""
    return 1 / (1 + 10 ** (-points / 400))


def optimal_tokens(n: float, a: float, b: float, alpha: float, beta: float) -> float:
    """Tokens for which n parameters are best, by loss = E + a / n**alpha + b / tokens**beta."""
    scale = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    return (n / scale) ** ((alpha + beta) / beta) / n


def optima(n: float) -> dict[str, float]:
    """How many times past the optimum 15 trillion tokens are, by five sources, for n parameters."""
    laws = {
        "Hoffmann 2022, rounded constants": optimal_tokens(n, 406.4, 410.7, 0.34, 0.28),
        "Hoffmann 2022, with more digits": optimal_tokens(n, 406.4, 410.7, 0.3392, 0.2849),
        "Meta's launch post, about 200 · 10⁹": 200e9,
        "Besiroglu 2024, fitted again": optimal_tokens(n, A, B, ALPHA, BETA),
        "rule of thumb, 20 per parameter": 20 * n,
    }
    times = {law: READ / tokens for law, tokens in laws.items()}
    low, *others = times.values()
    title = f"{min(others):.0f} to {max(others):.0f} times past the optimum, or {low:.0f} by rounded constants"
    alt = "Five dots on an axis from zero, one for each source: how many times past the optimum; two are one fit."
    show_figure(figures.draw_optima(times, title, one_fit=2), alt)
    return times


def law_of_loss(n: float, tokens: float) -> float:
    """The loss of n parameters after so many tokens, in nats per token, on the texts of the law."""
    return E + A / n**ALPHA + B / tokens**BETA


def law(n: float) -> tuple[float, float]:
    """The loss of n parameters by the tokens read; returns it after 15 trillion, and with endless text."""
    best = optimal_tokens(n, A, B, ALPHA, BETA)
    floor, reached, at_optimum = E + A / n**ALPHA, law_of_loss(n, READ), law_of_loss(n, best)
    tokens = [10 ** (10 + i / 20) for i in range(81)]
    marks = {
        f"the law's optimum, {best / 1e9:.0f} · 10⁹": (best, at_optimum),
        "15 · 10¹², as Llama 3": (READ, reached),
    }
    title = f"By the law {READ / best:.0f} times the text brings {at_optimum - reached:.2f} nats; "
    title += f"the last {READ / FITTED:.0f}-fold of it lies beyond every run that was fitted"
    alt = (
        "A falling curve of loss by tokens read, dotted beyond the fitted runs, flattening towards a dashed floor."
    )
    losses = [law_of_loss(n, count) for count in tokens]
    show_figure(figures.draw_law(tokens, losses, floor, marks, title, fitted=FITTED), alt)
    return reached, floor


def cheaper_training(n: float) -> tuple[float, float, float]:
    """The model that reaches the same loss with the least training: size, tokens, how many times less it costs.

    A training costs 6 operations per parameter and token.
    """
    wanted, spent = law_of_loss(n, READ), 6 * n * READ
    sizes = [10 ** (9 + i / 500) for i in range(2000)]

    def best(compute: float) -> float:
        return min(sizes, key=lambda size: law_of_loss(size, compute / (6 * size)))

    low, high = 0.01 * spent, spent
    for _ in range(40):  # a budget too small, and one large enough, come together
        middle = math.sqrt(low * high)
        enough = law_of_loss(best(middle), middle / (6 * best(middle))) <= wanted
        low, high = (low, middle) if enough else (middle, high)
    size = best(high)
    return size, high / (6 * size), spent / high


def tokens_of_tiny() -> int:
    """How many tokens the text has that tiny learned from, by the record of its training."""
    record, _ = read_json(data_directory() / "tiny-llama3", "training.json")
    return record["corpus"]["tokens"]


def answer_losses(subject: Subject, question: str, answer: str) -> Float[Tensor, " tokens"]:
    """The loss of each token of the answer, the question being read; drawn for both."""
    ids = torch.cat([subject.ids(question)[0], subject.ids(answer)[0, 1:]])
    n_read = subject.ids(question).shape[1] - 1
    losses = F.cross_entropy(subject.model(ids[None])[0, :-1], ids[1:], reduction="none")
    words = [*subject.words(question)[1:], *subject.words(answer)[1:]]
    mean = losses[n_read:].mean()
    title = f"The answer loses {mean:.2f} nats per token; what the question loses is not counted"
    alt = "A bar for each token's loss: those of the question grey, those of the answer black."
    show_figure(figures.draw_counted(words, losses.tolist(), n_read, title), alt)
    return losses[n_read:]


def preferences(
    subject: Subject, question: str, answers: Mapping[str, str], beta: float = 0.1
) -> tuple[float, float]:
    """DPO's loss of the reference itself, and of tiny; the reference is tiny after 400 of 3,800 steps.

    `answers` has the preferred one first.
    """
    reference = snapshots.load_snapshot(snapshots.snapshots()[400], subject.model.config)
    logs = {
        name: (
            _log_probability(reference, subject, question, answer),
            _log_probability(subject.model, subject, question, answer),
        )
        for name, answer in answers.items()
    }
    good, bad = ((before, after) for before, after in logs.values())
    margin = (good[1] - good[0]) - (bad[1] - bad[0])
    losses = (math.log1p(math.exp(-beta * 0.0)), math.log1p(math.exp(-beta * margin)))
    title = (
        f"Preferred {good[1] - good[0]:+.1f}, other {bad[1] - bad[0]:+.1f}: m = {margin:.1f}, "
        f"and the loss goes from {losses[0]:.3f} to {losses[1]:.3f}"
    )
    alt = "Two answers on an axis of log-probability: a hollow dot for the reference, an arrow to a full one."
    names = "the reference", subject.name
    show_figure(figures.draw_margins(logs, names, title), alt)
    return losses


def _log_probability(model: Transformer, subject: Subject, question: str, answer: str) -> float:
    """Of a whole answer, given the question, in nats."""
    n_read = subject.ids(question).shape[1]
    ids = torch.cat([subject.ids(question)[0], subject.ids(answer)[0, 1:]])
    logs = model(ids[None])[0, :-1].log_softmax(dim=-1)
    return logs[range(n_read - 1, len(ids) - 1), ids[n_read:]].sum().item()
