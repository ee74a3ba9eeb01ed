"""Part 6 - which words wake a hidden feature."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import feed_forward_models as figures
from decoding_llama3.lessons.show import common_words, held_out_ids, is_slow, show_table
from decoding_llama3.lessons.subject import Subject, present, token_strings

KINDS = {
    "numbers": "two three four seven ten",
    "times": "day night morning evening year hour",
    "negations": "don didn wasn couldn won",
    "speech": "said cried asked answered replied",
    "kin": "mother father sister brother son",
    "motion": "went came ran rode flew",
}

# More of the same kinds, so that a feature can be asked for them where only the commonest words are shown.
OTHERS = (
    "five six eight nine eleven twelve twenty hundred",
    "uncle aunt husband",
    "shouted whispered",
    "walked ran",
)


def ids_of_words(subject: Subject, words: str) -> list[int]:
    """The words that are one token of this tokenizer; of a list that has none, the first token of each word."""
    cut = [subject.tokenizer.encode(f" {word}") for word in words.split()]
    return [ids[0] for ids in cut if len(ids) == 1] or [ids[0] for ids in cut]


def awake_on(
    subject: Subject, listed: Sequence[int]
) -> tuple[Int[Tensor, " words"], list[Float[Tensor, "words hidden"]]]:
    """Every hidden feature on words, common ones, those `listed` and `OTHERS`, each alone after begin-of-text.

    Returns the ids of the words, and for each block the features on each of them.
    """
    model = subject.model
    common = common_words(subject.tokenizer, 300 if is_slow(model) else 3000)
    others = [ids_of_words(subject, words) for words in (*KINDS.values(), *OTHERS)]
    ids = torch.tensor(sorted({*common, *listed, *(token for some in others for token in some)}))
    rows = F.pad(ids[:, None], (1, 0), value=subject.tokenizer.bos_id).to(model.norm.weight.device)
    names, found = probe.names_of(model, "feed_forward.w_down"), []
    for some in rows.split(250):
        with probe.recording(model, names) as record:
            model.hidden(some)
        found.append([record.inputs[name][:, 1].float().cpu() for name in names])
    return ids, [torch.cat(block) for block in zip(*found, strict=True)]


def best_features(
    word_ids: Int[Tensor, " words"],
    awake: Sequence[Float[Tensor, "words hidden"]],
    lists: Sequence[Sequence[int]],
) -> list[tuple[float, int, int]]:
    """For each list of words the feature that all of them wake: how far the least, its block, its number.

    How far: in standard deviations over all words, from their mean, on one side or the other.
    """
    best = [(0.0, 0, 0)] * len(lists)
    for block, values in enumerate(awake):
        values = (values - values.mean(dim=0)) / values.std(dim=0).clamp(min=1e-6)
        for i, ids in enumerate(lists):
            rows = values[torch.isin(word_ids, torch.tensor(ids))]
            least = torch.maximum(rows.amin(dim=0), (-rows).amin(dim=0))
            best[i] = max(best[i], (least.max().item(), block, int(least.argmax())))
    return best


def by_chance_at_best(word_ids: Tensor, awake: Sequence[Tensor], size: int, draws: int = 10) -> float:
    """The best that a feature does on one of `draws` lists of words that were drawn by chance."""
    generator = torch.Generator().manual_seed(0)
    drawn = [word_ids[torch.randperm(len(word_ids), generator=generator)[:size]].tolist() for _ in range(draws)]
    return max(score for score, _, _ in best_features(word_ids, awake, drawn))


def feature_for(subject: Subject, words: str) -> tuple[int, int]:
    """The block and the number of the feature that all these words wake; see `best_features`."""
    listed = ids_of_words(subject, words)
    return best_features(*awake_on(subject, listed), [listed])[0][1:]


def wakes(words: str, *subjects: Subject | None) -> dict[str, tuple[int, int]]:
    """The feature that all these words wake, its value on each of them, and what else wakes it.

    Returns the block and the number of the feature, by the name of the model.
    """
    rows, found = [], {}
    for subject in present(*subjects):
        listed = ids_of_words(subject, words)
        word_ids, awake = awake_on(subject, listed)
        score, block, feature = best_features(word_ids, awake, [listed])[0]
        chance = by_chance_at_best(word_ids, awake, len(listed))
        found[subject.name] = block, feature
        values = awake[block][:, feature]
        theirs = [
            f"{w} {values[word_ids == i].item():+.1f}" for w, i in zip(_bare(subject, listed), listed, strict=True)
        ]
        others = f"{values.mean():+.1f} ± {values.std():.1f}"
        rows.append([f"{subject.name}, {block}.{feature}", " · ".join(theirs), others,
                     f"{score:.1f} ({chance:.1f})", _woken(subject, word_ids, values, listed)])  # fmt: skip
    header = [
        "model, block.feature",
        "its h on the words of the list",
        "h on all words",
        "its mark (by chance)",
        "wakes, too, on",
    ]
    show_table(rows, header)
    return found


def kinds(subject: Subject) -> None:
    """For each of six lists of words the feature that all of them wake, what else wakes it, and what in a book."""
    lists = {kind: ids_of_words(subject, words) for kind, words in KINDS.items()}
    word_ids, awake = awake_on(subject, [token for ids in lists.values() for token in ids])
    rows = []
    for (kind, ids), (score, block, feature) in zip(
        lists.items(), best_features(word_ids, awake, list(lists.values())), strict=True
    ):
        values = awake[block][:, feature]
        woken = _woken(subject, word_ids, values, ids)
        in_book = _woken_in_book(subject, block, feature, _side(word_ids, values, ids))
        rows.append([kind, " ".join(_bare(subject, ids)), f"{block}.{feature}", f"{score:.1f}", woken, in_book])
    rows.append(["by chance", "ten lists, the best", "", f"{by_chance_at_best(word_ids, awake, 5):.1f}", "", ""])
    header = [
        "list",
        "its words",
        "block.feature",
        "its mark",
        "wakes on words alone, not in the list",
        "most in a book",
    ]
    show_table(rows, header)


def _woken_in_book(subject: Subject, block: int, feature: int, side: float, most: int = 5) -> str:
    """The tokens of the held-out book on which a feature is farthest to one side, each once."""
    rows = held_out_ids(subject.model, subject.tokenizer)
    h = probe.neuron_activations(subject.model, rows, block)[:, 1:, feature].flatten()
    order = rows[:, 1:].flatten()[(side * h).argsort(descending=True)].tolist()
    return " · ".join(_bare(subject, list(dict.fromkeys(order))[:most]))


def _bare(subject: Subject, ids: Sequence[int]) -> list[str]:
    return [word.strip() for word in token_strings(torch.tensor(list(ids)), subject.tokenizer)]


def _side(word_ids: Tensor, values: Tensor, listed: Sequence[int]) -> float:
    """On which side of its mean a feature stands on the listed words: 1 or -1."""
    return (values[word_ids == listed[0]] - values.mean()).sign().item()


def _woken(subject: Subject, word_ids: Tensor, values: Tensor, listed: Sequence[int], most: int = 7) -> str:
    side = _side(word_ids, values, listed)
    order = word_ids[((values - values.mean()) * side).argsort(descending=True)].tolist()
    return " · ".join(_bare(subject, [token for token in order if token not in listed][:most]))


def most_awake(subject: Subject, text: str, block: int) -> list[int]:
    """The hidden features of a block by how awake they are where they are most awake in a text."""
    values = probe.neuron_activations(subject.model, subject.ids(text), block)[0, 1:]
    return values.abs().amax(dim=0).argsort(descending=True).tolist()


def feature_in_text(subject: Subject, text: str, block: int, feature: int) -> Figure:
    """How awake one hidden feature is on each token of a text."""
    values = probe.neuron_activations(subject.model, subject.ids(text), block)[0, 1:, feature].float().cpu()
    words = subject.words(text)[1:]
    most = int(values.abs().argmax())
    title = f"Feature {feature:,} of block {block}: {values[most]:+.1f} on '{words[most]}', where it is most awake"
    return figures.draw_text(values, words, title)
