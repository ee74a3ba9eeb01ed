"""The devices of this machine, and the dtype that each computes in."""

import torch

BFLOAT16_FROM = (8, 0)  # capability; below, torch.cuda.is_bf16_supported() says yes too, and emulates it slowly


def best_device() -> str:
    """cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(device: str | torch.device) -> None:
    """Raise ValueError, with the devices that there are, if no model can run on `device`, or TypeError."""
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device is a string such as 'cpu' or 'cuda:0', or a torch.device, found {device!r}")
    try:
        if str(device).partition(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
            raise NotImplementedError("models run on cpu, cuda, mps and xpu")
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        found += ["mps"] if torch.backends.mps.is_available() else []
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"device {str(device)!r} cannot be used here ({reason}): use one of {', '.join(found)}"
        ) from error


def choose_dtype(device: str | torch.device) -> torch.dtype:
    """What `device` computes in best: see `native_dtype`. A device that cannot be used raises ValueError."""
    check_device(device)
    kind = torch.device(device).type
    return native_dtype(kind, torch.cuda.get_device_capability(device) if kind == "cuda" else None)


def native_dtype(kind: str, capability: tuple[int, int] | None = None) -> torch.dtype:
    """float32 on a CPU; on a GPU bfloat16, or float16 where the `capability` of a CUDA card is below 8.0.

    A CPU keeps float32 even where it has instructions for bfloat16: with them a result depends on the machine.
    """
    if kind == "cpu":
        return torch.float32
    return torch.bfloat16 if kind == "cuda" and (capability or (0, 0)) >= BFLOAT16_FROM else torch.float16
