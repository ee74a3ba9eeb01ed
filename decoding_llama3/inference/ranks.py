"""Which of several processes this one is, as torchrun tells each in its environment."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `world`, and number `local` of the `local_world` on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1

    def own(self, n: int) -> range:
        """Those of `n` rows, columns or tokens that belong to this process; shares differ by one at most."""
        return range(n * self.rank // self.world, n * (self.rank + 1) // self.world)


def find_ranks() -> Ranks:
    """What torchrun has set; else one process. Raises ValueError where only a part of it is set, or nonsense."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return Ranks()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    found = [os.environ.get(name, "") for name in names]
    numbers = [int(value) if value.isascii() and value.isdigit() else -1 for value in found]
    rank, world, local, local_world = numbers
    if 0 <= rank < world and 0 <= local < local_world and {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return Ranks(rank, world, local, local_world)
    told = ", ".join(f"{name}={value[:20]!r}" for name, value in zip(names, found, strict=True))
    raise ValueError(
        f"the environment speaks of several processes, but not as torchrun does ({told}): start them with "
        "`torchrun --nproc-per-node 2 -m decoding_llama3 ...`, or unset WORLD_SIZE to run one"
    )
