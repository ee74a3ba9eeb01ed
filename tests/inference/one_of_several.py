"""One of several processes that share a model, as torchrun would start it: `python one_of_several.py JOB OUT`.

JOB is the JSON of a checkpoint and of what to do; OUT gets the results of this process.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

import decoding_llama3 as dl
from decoding_llama3.benchmark.peak import peak_bytes, reset_peaks
from decoding_llama3.inference import parallel

TOKENS = torch.arange(2 * 15).view(2, 15) * 7 % 320
N_NEW = 10  # tokens of a text
PREFILL = 9  # of the tokens are read at once, the others one at a time


def all_logits(model: dl.Transformer) -> dict[str, Tensor]:
    """Of the whole texts at once, and through the caches: a prompt, then single tokens."""
    caches, positions = model.make_caches(2, 32), torch.arange(TOKENS.shape[1])
    parts = [model(TOKENS[:, :PREFILL], positions[:PREFILL], caches)]
    for at in range(PREFILL, TOKENS.shape[1]):
        parts.append(model(TOKENS[:, at : at + 1], positions[at : at + 1], caches))
    return {"whole": model(TOKENS), "cached": torch.cat(parts, dim=1)}


def texts(model: dl.Transformer) -> dict[str, list[int]]:
    """The most probable tokens, and drawn ones."""
    prompt = TOKENS[0].tolist()
    drawn = dl.generate(model, prompt, N_NEW, temperature=1.0, top_p=0.9, seed=5)
    return {"greedy": list(dl.generate(model, prompt, N_NEW)), "drawn": list(drawn)}


def weight_bytes(model: dl.Transformer) -> int:
    """Of all weights and int8 buffers, tied ones once."""
    tensors = {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.nbytes for tensor in tensors.values())


def largest_storage(model: dl.Transformer) -> int:
    """Bytes of the largest storage that a weight keeps: a view of a whole matrix would keep all of it."""
    return max(weight.untyped_storage().nbytes() for weight in model.parameters())


def by_pytorch(path: str) -> dl.Transformer:
    """The same plan run by torch.distributed.tensor: an oracle of PyTorch's own."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model = dl.load_model(path, dtype=torch.float32)
    config = parallel.narrow_config(model.config, parallel.find_ranks())
    styles = {
        "tok_embeddings": RowwiseParallel(input_layouts=Replicate()),
        "layers.*.attention.w[qkv]": ColwiseParallel(),
        "layers.*.attention.wo": RowwiseParallel(),
        "layers.*.feed_forward.w_[gu]*": ColwiseParallel(),
        "layers.*.feed_forward.w_down": RowwiseParallel(),
        "output": ColwiseParallel(output_layouts=Replicate()),
    }
    parallelize_module(model, init_device_mesh("cpu", (dist.get_world_size(),)), styles)
    model.config = parallel.dataclasses.replace(config, vocab_size=model.config.vocab_size)
    return model


def main(job: dict, out: Path) -> None:
    device = parallel.meet("cpu")
    dtype = getattr(torch, job.get("dtype", "float32"))
    reset_peaks(device)
    before = peak_bytes(device)["host"]
    model = parallel.load_share(job["path"], device, dtype, job.get("quantize"))
    peak = peak_bytes(device)["host"] - before
    with torch.inference_mode():
        tensors = all_logits(model)
        if job.get("pytorch"):
            tensors |= {f"pytorch {name}": logits for name, logits in all_logits(by_pytorch(job["path"])).items()}
    (cache, *_) = model.make_caches(1, 16)
    figures = texts(model) | {
        "peak": peak,
        "bytes": weight_bytes(model),
        "largest": largest_storage(model),
        "cache": list(cache.keys.shape),
        "from_first": parallel.from_first(f"said by {dist.get_rank()}"),
    }
    rank = dist.get_rank()
    save_file({name: logits.contiguous() for name, logits in tensors.items()}, out / f"{rank}.safetensors")
    (out / f"{rank}.json").write_text(json.dumps(figures))
    parallel.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
