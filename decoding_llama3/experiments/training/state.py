"""The state of a training: who it is, and all it takes to go on as if it had never been stopped."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments.corpus import Corpus
from decoding_llama3.experiments.files import read_text, write_json, write_whole
from decoding_llama3.experiments.training.settings import TrainingSettings
from decoding_llama3.transformer import Transformer

STATE, IDENTITY = "state.safetensors", "run.json"
OLD_STATE = "state.pt"  # a pickle, of the versions before
OWN_FILES = (
    STATE,
    "tokenizer.model",
    "snapshots",
    "model.safetensors",
    "config.json",
    "loss.csv",
    "training.json",
)
ANOTHER = "give another --out, or delete the whole folder"


@dataclass(frozen=True)
class TrainingRun:
    """A training in its folder. Text, shape and settings make it; all files there belong to it."""

    out: Path
    corpus: Corpus
    config: LlamaConfig
    settings: TrainingSettings

    @property
    def identity(self) -> dict:
        """What may not change. The number of steps and the decay may, as long as no decay has begun."""
        fixed = {k: v for k, v in asdict(self.settings).items() if k not in ("steps", "decay")}
        made_of = {"corpus": self.corpus.sha256, "held_out": _sha256(self.corpus.held_out.encode())}
        return json.loads(json.dumps(made_of | {"config": asdict(self.config), "settings": fixed}))

    def claim(self) -> dict:
        """Take the folder for this run; return what is written of it there.

        Raises ValueError where its files are those of another run, or of none that is known.
        """
        path = self.out / IDENTITY
        if not path.exists():
            if (self.out / OLD_STATE).exists():
                raise ValueError(
                    f"{self.out} has a {OLD_STATE} and no {IDENTITY}: runs of an earlier version of this package "
                    f"cannot be continued; {ANOTHER}"
                )
            if found := [name for name in OWN_FILES if (self.out / name).exists()]:
                raise ValueError(
                    f"{self.out} has a {found[0]} and no {IDENTITY}, so it is of another run: {ANOTHER}"
                )
            write_json(path, {"run": self.identity})
        kept = _read_object(path)
        if kept.get("run") != self.identity:
            raise ValueError(f"{self.out} belongs to a run with other text or settings: {ANOTHER}")
        return kept

    def check_tokenizer(self, kept: dict) -> None:
        """Raise ValueError unless tokenizer.model is the file that this run has made."""
        digest = _sha256((self.out / "tokenizer.model").read_bytes())
        if kept.setdefault("tokenizer_sha256", digest) != digest:
            raise ValueError(f"{self.out / 'tokenizer.model'} is not the one that this run began with: {ANOTHER}")
        write_json(self.out / IDENTITY, kept)


def save_state(
    run: TrainingRun, model: Transformer, optimizers: Sequence[torch.optim.Optimizer], records: Sequence[dict]
) -> None:
    """Write all that `load_state` reads, at once or not at all."""
    tensors = dict(_model_tensors(model))
    for i, optimizer in enumerate(optimizers):
        for parameter, values in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{i}.{parameter}.{key}": torch.as_tensor(value) for key, value in values.items()
            }
    schedule = {"steps": run.settings.steps, "decay": run.settings.decay}
    about = {"run": run.identity, "schedule": schedule, "records": list(records)}
    header = {"training": json.dumps(about)}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(run.out / STATE, lambda fresh: save_file(contiguous, fresh, metadata=header))


def load_state(run: TrainingRun, model: Transformer, optimizers: Sequence[torch.optim.Optimizer]) -> list[dict]:
    """Put model and optimizers where the last saved step left them; return the records, [] if nothing was saved.

    Raises ValueError for a damaged file, and where the steps asked for do not go on from there.
    """
    path = run.out / STATE
    if not path.exists():
        return []
    with _one_sentence(path):
        with safe_open(path, framework="pt", device=str(model.norm.weight.device)) as file:
            about = json.loads((file.metadata() or {})["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        of, records, before = about["run"], about["records"], replace(run.settings, **about["schedule"])
        if [record["step"] for record in records] != list(range(1, len(records) + 1)):
            raise ValueError("a step is missing")
    if of != run.identity:
        raise ValueError(f"{path} belongs to a run with other text or settings: {ANOTHER}")
    _check_schedule(len(records), before, run.settings)
    with _one_sentence(path):
        _fill(model, optimizers, tensors)
    return records


def _fill(model: Transformer, optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    for name, tensor in _model_tensors(model):
        if tensors[name].shape != tensor.shape:
            raise ValueError(f"{name} has another shape")
        tensor.data.copy_(tensors[name])
    for i, optimizer in enumerate(optimizers):
        state = _optimizer_state(tensors, f"optimizer.{i}.")
        if state.keys() != set(range(sum(len(group["params"]) for group in optimizer.param_groups))):
            raise ValueError(f"optimizer {i} lacks a weight")
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """What can go wrong in reading a damaged state is one ValueError."""
    try:
        yield
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r:.80}): delete it, and the run begins anew") from error


def _check_schedule(done: int, before: TrainingSettings, now: TrainingSettings) -> None:
    """The steps may change only while both schedules have had the same learning rates."""
    if now.steps < done:
        raise ValueError(f"{done} steps are done already, {now.steps} were asked for: ask for {done} or more")
    if (before.steps, before.decay) != (now.steps, now.decay) and done > min(before.decay_start, now.decay_start):
        raise ValueError(
            f"{done} steps are done, with a learning rate that falls from step {before.decay_start:.0f} on; with "
            f"{now.steps} steps it would fall from step {now.decay_start:.0f} on: ask for {before.steps} steps, "
            "or give another --out"
        )


def _model_tensors(model: Transformer) -> list[tuple[str, Tensor]]:
    """Name and tensor of every weight, a tied one once: two names of one memory cannot be stored."""
    tied = model.config.tie_embeddings
    return [(f"model.{k}", v) for k, v in model.state_dict().items() if not (tied and k == "output.weight")]


def _optimizer_state(tensors: dict[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            parameter, key = name.removeprefix(prefix).split(".", 1)
            state.setdefault(int(parameter), {})[key] = tensor
    return state


def _read_object(path: Path) -> dict:
    try:
        values = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged: {ANOTHER}")
    return values


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
