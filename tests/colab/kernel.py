"""A kernel as Google Colab starts it: `google.colab` is imported, and memory and card are those of such a machine.

COLAB_MEMORY has the bytes of memory: a limit of the address space of this process and of each that it starts,
and what psutil tells. COLAB_CARD has the bytes of a card: then torch tells of a T4, and tensors that go there are
those of another_device.py, which refuse to meet those that have stayed.
"""

import os
import resource
import sys
from pathlib import Path

import psutil

HERE = Path(__file__).parent
T4 = (7, 5)  # its capability


def limit_memory(n_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
    of_the_machine = psutil.virtual_memory

    def virtual_memory():
        found, own = of_the_machine(), psutil.Process().memory_info().rss
        return found._replace(
            total=min(found.total, n_bytes), available=max(0, min(found.available, n_bytes - own))
        )

    psutil.virtual_memory = virtual_memory


def pretend_card(n_bytes: int) -> None:
    import torch

    sys.path.append(str(HERE.parent / "lessons"))
    from another_device import Event, PretendingMode

    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "Tesla T4",
        "get_device_capability": T4,
        "is_bf16_supported": True,  # torch says so of a T4, too: it would emulate it
        "mem_get_info": (n_bytes, n_bytes),
        "memory_reserved": 0,
        "memory_allocated": 0,
        "synchronize": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.Event = Event
    PretendingMode().__enter__()


if __name__ == "__main__":
    limit_memory(int(os.environ.pop("COLAB_MEMORY")))
    sys.path[0] = str(HERE / "standin")
    import google.colab  # noqa: F401

    if "COLAB_CARD" in os.environ:
        pretend_card(int(os.environ.pop("COLAB_CARD")))
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
