"""The plan of a benchmark: which model, device, engines and lengths, all checked before anything is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from decoding_llama3.benchmark.engines import OURS
from decoding_llama3.benchmark.huggingface import BASELINES, check_transformers
from decoding_llama3.benchmark.lengths import check_new_tokens, clip_lengths, max_context
from decoding_llama3.benchmark.models import preset_config, random_model
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.find import checkpoint_path, read_config
from decoding_llama3.inference.compile import can_compile
from decoding_llama3.inference.devices import check_device
from decoding_llama3.inference.load import load_model
from decoding_llama3.inference.ranks import find_ranks
from decoding_llama3.transformer import Transformer

ENGINES = OURS | BASELINES


@dataclass(frozen=True)
class Plan:
    """What to measure: a checkpoint's directory, "tiny", or random weights of a preset's shape."""

    source: str
    random: bool
    device: str
    dtype: str
    engines: tuple[str, ...]
    prompts: tuple[int, ...]
    contexts: tuple[int, ...]
    new_tokens: int
    runs: int
    threads: int
    processes: int = 1  # that share the model

    @property
    def config(self) -> LlamaConfig:
        return preset_config(self.source) if self.random else read_config(self.source)

    @property
    def own_config(self) -> LlamaConfig:
        """What one process computes: all, or its share."""
        if self.processes == 1:
            return self.config
        from decoding_llama3.inference.parallel import narrow_config  # a second more, for several processes only

        return narrow_config(self.config, find_ranks())

    @property
    def calls(self) -> int | None:
        """How often a prompt is read: a fixed number where processes wait for each other."""
        return None if self.processes == 1 else 5

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def load(self, quantize: str | None = None) -> Transformer:
        """This package's model of the plan, or this process's share of it."""
        if self.processes > 1:
            return self._load_share()
        if self.random:
            return random_model(self.config, self.device, self.torch_dtype, quantize)
        return load_model(self.source, self.device, self.torch_dtype, quantize)

    def _load_share(self) -> Transformer:
        from decoding_llama3.inference.parallel import connect, load_share

        if self.random:
            own = random_model(self.own_config, self.device, self.torch_dtype)
            return connect(own, self.config.vocab_size)
        return load_share(self.source, self.device, self.torch_dtype)


def make_plan(
    source: str = "tiny",
    random: bool = False,
    engines: Sequence[str] = tuple(OURS),
    against: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    prompts: Sequence[int] = (128, 512, 2048),
    contexts: Sequence[int] = (128, 1024, 4096),
    new_tokens: int = 64,
    runs: int = 3,
    report: Callable[[str], None] = print,
) -> Plan:
    """A checked plan; `against` is "huggingface" (both baselines) or the name of one.

    What does not fit the model or the machine is left out and reported; ValueError if nothing is left, or if an
    argument is wrong. Processes that share the model measure the engine "eager".
    """
    check_device(device)
    config = preset_config(source) if random else read_config(source)
    names = _our_engines(engines) + (_baselines(against) if against is not None else [])
    names = _compilable(names, device, report)
    if against is not None and not random and not (checkpoint_path(source) / "config.json").is_file():
        raise ValueError(f"{source} is in Meta's layout, which transformers cannot read: leave out the comparison")
    if runs < 1:
        raise ValueError(f"runs must be 1 or more, found {runs}")
    check_new_tokens(new_tokens, config)
    return Plan(
        source,
        random,
        device,
        str(dtype).removeprefix("torch."),
        names,
        _fitting_lengths("prompts", prompts, config.max_seq_len, report),
        _fitting_lengths("contexts", contexts, max_context(config, new_tokens), report),
        new_tokens,
        runs,
        torch.get_num_threads(),
        _sharing(engines, against),
    )


def _sharing(engines: Sequence[str], against: str | None) -> int:
    """How many processes share the model; they cannot run all engines."""
    processes = find_ranks().world
    if processes > 1 and (tuple(engines) != ("eager",) or against is not None):
        raise ValueError(f"{processes} processes that share a model measure the engine 'eager': name no other")
    return processes


def _our_engines(engines: Sequence[str]) -> list[str]:
    if unknown := [name for name in engines if name not in OURS]:
        raise ValueError(f"no engine is called {unknown[0]!r}; there are {', '.join(OURS)}")
    return list(dict.fromkeys(engines))


def _baselines(against: str) -> list[str]:
    names = [name for name in BASELINES if against in ("huggingface", name)]
    if not names:
        known = ", ".join(["huggingface (both)", *BASELINES])
        raise ValueError(f"no baseline is called {against!r}; there are {known}")
    check_transformers()
    return names


def _compilable(names: list[str], device: str, report: Callable[[str], None]) -> tuple[str, ...]:
    """All of them, or without a compiler those that need none."""
    out = [name for name in names if ENGINES[name]["compile"]] if not can_compile(device) else []
    for name in out:
        report(f"{name} is left out: it needs a C++ compiler, g++ or clang")
    if len(out) == len(names):
        raise ValueError("no engine is left to measure: install g++ or clang, or take the engine 'eager'")
    return tuple(name for name in names if name not in out)


def _fitting_lengths(
    what: str, lengths: Sequence[int], longest: int, report: Callable[[str], None]
) -> tuple[int, ...]:
    if wrong := [n for n in lengths if n < 1]:
        raise ValueError(f"{what} have 1 token or more, found {wrong[0]}")
    kept = clip_lengths(lengths, longest)
    if not kept:
        raise ValueError(f"none of the {what} {', '.join(map(str, lengths))} fits: take {longest} tokens or fewer")
    if dropped := sorted(set(lengths) - set(kept)):
        report(f"{what} of {', '.join(map(str, dropped))} tokens are left out: {longest} fit this model")
    return kept
