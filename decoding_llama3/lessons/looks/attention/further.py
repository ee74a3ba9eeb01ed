"""Part 5, going further - heads that copy, how they form, and what each head of a model is worth."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.experiments import copying
from decoding_llama3.experiments.ablation.statistics import T_95
from decoding_llama3.inspect import heads, probe
from decoding_llama3.lessons.figures import attention_models as figures
from decoding_llama3.lessons.looks.attention.models import START, attention_maps
from decoding_llama3.lessons.show import held_out_ids, ordinary_ids, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present

Heads = list[tuple[int, int]]  # (block, head)
REPEATS = "4 rows of 96 random words, which begin again after 24 to 48; all later copies count as said again"
Repeats = tuple[Int[Tensor, "batch seq"], Int[Tensor, " batch"]]


def repeats_for(subject: Subject, batch: int = 4) -> Repeats:
    """Rows of random words of the model's vocabulary, said twice, and after how many words each row repeats."""
    drawn = heads.repeated_random_tokens(
        ordinary_ids(subject.tokenizer),
        subject.tokenizer.bos_id,
        batch=batch,
        seq=97,
        generator=torch.Generator().manual_seed(0),
        periods=range(24, 49),
    )
    tokens, periods = (part.to(subject.model.norm.weight.device) for part in drawn)
    return tokens, periods


def copying_heads(*subjects: Subject | None) -> None:
    """The loss on random words said twice, and the heads that attend to the word before and to what came next."""
    panels, rows, told = {}, [], []
    for subject in present(*subjects):
        tokens, periods = repeats_for(subject)
        first, later = heads.repeat_losses(subject.model, tokens, periods)
        scores = heads.head_scores(subject.model, tokens, periods)
        scores = {kind: values.float().cpu() for kind, values in scores.items()}
        panels[subject.name] = {
            "the token before": scores["previous"],
            "after the previous occurrence": scores["induction"],
        }
        layer, head = divmod(int(scores["induction"].argmax()), scores["induction"].shape[1])
        told.append(f"{subject.name}'s head {layer}.{head} ({scores['induction'].max():.0%})")
        rows.append([subject.name, f"{first:.2f}", f"{later:.2f}"])
    show_table(rows, ["nats per token", "said for the first time", "said again"], REPEATS)
    title = f"What came after the previous occurrence is looked up most by {' and '.join(told)}"
    alt = "Grids of blocks by heads for each model: weight on the token before, and after the previous occurrence."
    show_figure(figures.draw_head_kinds(panels, title), alt)


def copying_silenced(subject: Subject, text: str, draws: int = 10) -> None:
    """Loss on words said again without the copying heads, without those on the token before, without each block,
    and without as many others, drawn by chance from all blocks and from all but the dearest.
    """
    model, ids = subject.model, subject.ids(text)
    tokens, periods = repeats_for(subject)
    scores = heads.head_scores(model, tokens, periods)
    kinds = {"heads that copy": "induction", "heads on the token before": "previous"}
    named = {name: heads_above(scores[kind]) for name, kind in kinds.items()}
    even = evenness(attention_maps(subject, text))
    whole, tale = heads.repeat_losses(model, tokens, periods)[1], probe.loss_of(model, ids)

    blocks, n_heads = range(model.config.n_layers), model.config.n_heads
    every = itertools.product(blocks, range(n_heads))
    others = sorted(set(every) - {pair for silent in named.values() for pair in silent})

    def rise_without(silent: Heads) -> float:
        with heads.without_heads(model, silent):
            return heads.repeat_losses(model, tokens, periods)[1] - whole

    def rises_without(silent: Heads) -> tuple[float, float]:
        with heads.without_heads(model, silent):
            on_the_tale = probe.loss_of(model, ids) - tale
        return rise_without(silent), on_the_tale

    by_block = [rises_without([(block, head) for head in range(n_heads)]) for block in blocks]
    dearest = max({block for block, _ in others}, key=lambda block: by_block[block][0], default=0)
    elsewhere = [pair for pair in others if pair[0] != dearest]
    rows = []
    for name, silent in named.items():
        rows.append([f"the {len(silent)} {name}", *map("{:+.2f}".format, rises_without(silent)), ""])
        for pool, of in ((others, ""), (elsewhere, f", none of block {dearest}")):
            drawn = by_chance(pool, len(silent), draws)
            rises = [rise_without(chosen) for chosen in drawn]
            spread = f"{min(rises):+.2f} to {max(rises):+.2f}"
            rows.append([f"{len(drawn[0])} of the {len(pool)} others{of}, {draws} draws", spread, "", ""])
    for block, rises in enumerate(by_block):
        rows.append([f"block {block}, all heads", *map("{:+.2f}".format, rises), f"{even[block]:.0%}"])
    header = ["attention silenced", "words said again", "the tale", "keys in use (step 3), as a share of all"]
    show_table(rows, header, f"rise of the loss, in nats per token; said again, with all heads, it is {whole:.2f}")


def evenness(maps: Float[Tensor, "layers heads seq seq"]) -> Float[Tensor, " layers"]:
    """Over what share of the tokens that it may attend to a head spreads its weight, a mean for each block."""
    spread = torch.special.entr(maps[:, :, START:]).sum(-1).exp()
    return (spread / torch.arange(START + 1, maps.shape[-1] + 1)).mean((1, 2))


def heads_above(scores: Float[Tensor, "layers heads"], threshold: float = 0.3) -> Heads:
    """The heads whose score is above the threshold, or the highest one if none is."""
    scores = scores.float().cpu()
    return [(i, j) for i, j in (scores >= min(threshold, scores.max().item())).nonzero().tolist()]


def by_chance(pool: Heads, count: int, draws: int) -> list[Heads]:
    """So many heads of `pool`, or all where there are fewer, drawn several times."""
    generator = torch.Generator().manual_seed(0)
    return [
        [pool[i] for i in torch.randperm(len(pool), generator=generator)[:count].tolist()] for _ in range(draws)
    ]


def circuit_forming() -> dict[str, float]:
    """How the copying of the smallest models formed; returns the last accuracy of each kind, a mean over seeds."""
    sights = copying.read_sights()
    by_kind: dict[str, dict[int, list[copying.Sight]]] = {}
    for sight in sights:
        by_kind.setdefault(sight.kind, {}).setdefault(sight.seed, []).append(sight)
    curves = {
        kind: torch.tensor([[sight.accuracy for sight in seen] for seen in by_kind[kind].values()])
        for kind in ("two blocks", "one block")
    }
    steps = [sight.step for sight in by_kind["two blocks"][0]]
    last = {kind: [seen[-1] for seen in seeds.values()] for kind, seeds in by_kind.items()}
    means = {kind: sum(sight.accuracy for sight in seen) / len(seen) for kind, seen in last.items()}
    times = rise_times(steps, curves["two blocks"])
    within = " to ".join(f"{t}" for t in sorted({min(times), max(times)}))
    title = (
        f"Two blocks learn to copy {means['two blocks']:.0%}, from 30 to 90 % within {within} steps; "
        f"one block ends at {means['one block']:.0%}"
    )
    alt = "Thin lines of the share predicted by step of training, one a seed, for one block and for two."
    show_figure(figures.draw_forming(steps, curves, title), alt)
    rows = [
        [
            kind,
            *(
                spread_of([getattr(sight, name) for sight in seen])
                for name in ("accuracy", "at_9", "before", "copying")
            ),
        ]
        for kind, seen in last.items()
    ]
    header = [
        "after training, lowest to highest of 5 seeds", "repeats, predicted", "repeats after 9 letters",
        "weight on the letter before", "weight on what came next",
    ]  # fmt: skip
    caption = (
        "weights: of the best head, in rows that begin again after 5 to 14 letters, whatever it was trained on"
    )
    show_table(rows, header, caption)
    return means


def rise_times(steps: Sequence[int], curves: Float[Tensor, "seeds steps"]) -> list[int]:
    """How many steps each seed takes from 30 to 90 per cent, or until the last step."""

    def first_above(curve: list[float], least: float) -> int:
        return next((step for step, share in zip(steps, curve, strict=True) if share > least), steps[-1])

    return [first_above(curve, 0.9) - first_above(curve, 0.3) for curve in curves.tolist()]


def spread_of(values: Sequence[float]) -> str:
    """From the lowest to the highest, in per cent."""
    return f"{100 * min(values):.0f} to {100 * max(values):.0f} %"


def each_head_silenced(subject: Subject, windows: int = 10, length: int = 64) -> None:
    """The rise of the loss without each head, over texts each compared with itself; and without blocks."""
    rises, together = rises_without_heads(subject, held_out_ids(subject.model, subject.tokenizer, windows, length))
    blocks, n_heads, _ = rises.shape
    mean, half = rises.mean(-1), half_interval(rises)
    block, head = divmod(int(mean.argmax()), n_heads)
    others = torch.cat([rises[block, :head], rises[block, head + 1 :]])
    more = rises[block, head] - others.mean(0)
    title = (
        f"No single head of {subject.name} costs more than {mean.max():.3f} nats, "
        f"a whole block up to {together.mean(-1).max():.2f}"
    )
    print(
        f"of {blocks * n_heads} heads {int((mean > half).sum())} cost more than nothing, "
        f"{int((mean < -half).sum())} less; head {block}.{head} costs {more.mean():.3f} ± "
        f"{half_interval(more):.3f} more than the mean of its block's others"
    )
    alt = "Dots with intervals for each head of each block: the rise of the loss; bars for whole blocks."
    show_figure(figures.draw_silenced_heads(mean, half, together.mean(-1), title), alt)


def half_interval(differences: Float[Tensor, "*any texts"]) -> Float[Tensor, "*any"]:
    """Half the 95 % interval of the mean of paired differences."""
    texts = differences.shape[-1]
    return T_95[min(texts, max(T_95))] * differences.std(-1) / texts**0.5


def rises_without_heads(
    subject: Subject, ids: Int[Tensor, "texts seq"]
) -> tuple[Float[Tensor, "blocks heads texts"], Float[Tensor, "blocks texts"]]:
    """How much the loss of each text rises without each head, and without all heads of each block."""
    model = subject.model
    positions = torch.arange(ids.shape[1], device=ids.device)
    rotation, n_heads = model.rotation_at(positions), model.config.n_heads

    def losses(x: Tensor, start: int) -> Tensor:
        for layer in model.layers[start:]:
            x = layer(x, positions, rotation)
        return probe.next_token_losses(model.output(model.norm(x)).float(), ids).mean(-1).cpu()

    x, alone, together = model.tok_embeddings(ids), [], []
    whole = losses(x, 0)
    for block, layer in enumerate(model.layers):
        for silent in [[head] for head in range(n_heads)] + [list(range(n_heads))]:
            with heads.without_heads(model, [(block, head) for head in silent]):
                (alone if len(silent) == 1 else together).append(losses(x, block) - whole)
        x = layer(x, positions, rotation)  # what stands below a block does not change with it
    return torch.stack(alone).unflatten(0, (-1, n_heads)), torch.stack(together)
