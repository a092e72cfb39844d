"""A device that is the processor in disguise: mixing tensors of both raises, as on a GPU.

Tensors that are "there" are a subclass over ordinary memory, whose ``device`` says ``cuda:0``. What torch forbids between
devices is forbidden here: a host tensor with axes in an operation with one that is there, other than as an index, and
``numpy()``. Of torch's modules ``to`` has to be replaced, see :func:`module_to`: their own swaps tensors' memory.
"""

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

THERE = torch.device("cuda", 0)
INDEXED = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
SAYS = {torch.Tensor.device.__get__: THERE, torch.Tensor.is_cuda.__get__: True}
LANDS = {torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.__bool__}
MOVES = {torch.Tensor.to, torch.Tensor.copy_, torch.Tensor.cpu}


class There(torch.Tensor):
    """A tensor on the device."""

    def __deepcopy__(self, memo):
        return self.detach().clone().requires_grad_(self.requires_grad)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def _bare(x):
    return x.as_subclass(torch.Tensor) if isinstance(x, There) else x


def _there(x):
    return x.as_subclass(There) if isinstance(x, torch.Tensor) and not isinstance(x, There) else x


def _asked(device):
    return device is not None and torch.device(device).type == "cuda"


def _call(func, args, kwargs):
    with torch._C.DisableTorchFunctionSubclass():
        if func in SAYS and isinstance(args[0], There):
            return SAYS[func]
        if func is torch.Tensor.numpy and isinstance(args[0], There):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        away = any(isinstance(x, There) for x in tensors)
        if func in MOVES:
            return _moved(func, args, kwargs)
        if away:
            _refuse_mixed(func, args, kwargs, tensors)
        goes = away or _asked(kwargs.get("device"))
        if _asked(kwargs.get("device")):
            kwargs = {**kwargs, "device": "cpu"}
            if kwargs.get("generator") is not None:
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        result = func(*args, **kwargs)  # plain tensors, but for what is changed in place
        if func in LANDS:
            return result
        return tree_map(_there, result) if goes else result


def _moved(func, args, kwargs):
    if func is torch.Tensor.copy_:
        func(*map(_bare, args), **kwargs)
        return args[0]
    targets = [*args[1:], *kwargs.values()]
    like = [x for x in targets if isinstance(x, torch.Tensor)]
    devices = [torch.device(x) for x in targets if isinstance(x, (str, torch.device))]
    goes = isinstance(args[0], There)
    if like:
        goes = isinstance(like[0], There)
    elif devices:
        goes = devices[0].type == "cuda"
    if func is torch.Tensor.cpu:
        goes = False
    plain = [x for x in args[1:] if isinstance(x, (torch.dtype, torch.Tensor))]
    named = {k: v for k, v in kwargs.items() if k in ("dtype", "copy")}
    result = _bare(args[0])
    if func is torch.Tensor.to and (plain or named):
        result = func(result, *map(_bare, plain), **named)
    return _there(result) if goes else result


def _refuse_mixed(func, args, kwargs, tensors):
    if func in INDEXED:
        tensors = [args[0], *args[2:]]
        index = [x for x in tree_flatten(args[1])[0] if isinstance(x, torch.Tensor)]
        if not isinstance(args[0], There) and any(isinstance(x, There) for x in index):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
    here = [x for x in tensors if isinstance(x, torch.Tensor) and not isinstance(x, There) and x.dim() > 0]
    if here and any(isinstance(x, There) for x in tensors):
        name = getattr(func, "__name__", func)
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu")


class Pretend(TorchFunctionMode):
    """While this is entered, ``device="cuda"`` and ``to("cuda")`` work."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def module_to(module, device):
    """What ``nn.Module.to`` does, with new parameters and buffers."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = parameter.detach().to(device)
                part._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(device)
    return module
