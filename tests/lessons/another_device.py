"""A stand-in for a GPU where there is none: tensors that say they are on one and refuse those that are not.

Enough to see that a look at a model brings its own tensors to the model and its results back.
"""

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

GPU = torch.device("cuda:0")
FREE = {Tensor.__getitem__, Tensor.__setitem__}  # an index may come from the CPU


class Away(Tensor):
    """A CPU tensor that passes for one on the GPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        if func == Tensor.device.__get__:
            return GPU
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert a CUDA tensor to numpy: use Tensor.cpu() first")
        if func is Tensor.copy_:  # the one call that a GPU takes with tensors here and there
            with torch._C.DisableTorchFunctionSubclass():
                args[0].as_subclass(Tensor).copy_(args[1].as_subclass(Tensor))
            return args[0]
        flat, _ = tree_flatten((args, kwargs))
        here = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, Away) and x.dim() > 0]
        if here and not (func in FREE and isinstance(args[0], Away)):
            raise RuntimeError(f"{func.__name__}: tensors on cuda:0 and on cpu")
        goes, args, kwargs = _destination(func, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            plain = tree_map_only(Away, lambda t: t.as_subclass(Tensor), (args, kwargs))
            result = func(*plain[0], **plain[1])
        if goes == "cpu":
            return result
        return tree_map_only(Tensor, lambda t: t.as_subclass(Away), result)


def _destination(func, args, kwargs):
    """Where the result is to be, and the call without a device that this machine lacks."""
    named = [device for device in map(_device, (*args, *kwargs.values())) if device]
    goes = "cpu" if func is Tensor.cpu else named[-1] if named else "cuda"
    here = tuple("cpu" if _device(arg) else arg for arg in args)
    return goes, here, {name: "cpu" if _device(value) else value for name, value in kwargs.items()}


def _device(arg) -> str | None:
    if isinstance(arg, torch.device):
        return arg.type
    return arg if isinstance(arg, str) and arg in ("cpu", "cuda") else None


class PretendingMode(TorchFunctionMode):
    """Makes `device=` and `.to()` of the GPU lead to `Away` tensors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        named = func is torch.device  # no tensor, the name of a place
        if named or func == Tensor.device.__get__ or any(issubclass(t, Away) for t in types):
            return func(*args, **kwargs)
        if "cuda" not in map(_device, (*args, *kwargs.values())):
            return func(*args, **kwargs)
        _, args, kwargs = _destination(func, args, kwargs)
        return tree_map_only(Tensor, lambda t: t.as_subclass(Away), func(*args, **kwargs))


class Event:
    """In place of `torch.cuda.Event`: here everything is done at once."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


def send_away(model: nn.Module) -> nn.Module:
    """The model with every weight and buffer where `Away` tensors are."""
    done = {}
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, value in kind.items():
                if value is not None:
                    kind[name] = done.setdefault(id(value), value.detach().as_subclass(Away))
    return model
