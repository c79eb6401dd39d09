"""A device that exists only in tests: tensors behave as if they were on a GPU, and what would wait for it is counted.

Everything runs on the CPU. Under `PretendDevice`, a tensor is "on the host" if it was made there: from numpy or Python
numbers, by a random generator, or by `.cpu()`. All others, such as weights, are "on the device". A tensor with
dimensions can be used only with others of its place, as on a real GPU.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

# Calls that wait: they read a value, or the shape of their result follows from values.
READS = {"cpu", "item", "tolist", "__bool__", "__float__", "__int__", "__index__"} | {
    "nonzero", "unique", "masked_select", "argwhere", "equal", "allclose", "bincount",
}  # fmt: skip
NUMPY = {"numpy", "__array__"}
INDEXING = {"__getitem__", "__setitem__"}


class MixedPlaces(Exception):
    """A tensor of the host met one of the device."""


class PretendDevice(TorchFunctionMode):
    """Counts in `reads` the calls that wait for the device by name, and in `uploads` the copies to it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.uploads = 0
        self._host = WeakIdKeyDictionary()  # tensors on the host
        self._from_numpy = torch.from_numpy

    def __enter__(self):
        torch.from_numpy = self._of_array  # no mode sees it
        return super().__enter__()

    def __exit__(self, *error):
        torch.from_numpy = self._from_numpy
        super().__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        host = [tensor for tensor in given if tensor in self._host]
        on_device = len(host) < len(given)
        named = name == "to" and any(isinstance(arg, str | torch.device) for arg in args)
        to_device = named or kwargs.get("device") is not None
        result = func(*args, **kwargs)
        if on_device and (name in READS or name in NUMPY):
            self.reads[name] += 1
        if on_device and name in NUMPY:
            raise MixedPlaces(f"{name} of a tensor on the device")
        if on_device and name in INDEXING:
            self._count_index(args[1])
        elif to_device or name == "copy_":
            self.uploads += bool(host) or (not given and name in ("tensor", "as_tensor"))
        elif on_device and any(tensor.ndim for tensor in host) and name != "__get__":
            raise MixedPlaces(f"{name} of {[tuple(tensor.shape) for tensor in given]}")
        if name == "cpu" or to_device:  # another object: a CPU tensor is its own copy on the CPU
            result = tree_map_only(Tensor, lambda tensor: tensor.view_as(tensor), result)
        if to_device:
            return result
        if name == "cpu":
            return self._made(result)
        return result if on_device else tree_map_only(Tensor, self._made, result)

    def _made(self, tensor):
        self._host[tensor] = True
        return tensor

    def _of_array(self, array):
        return self._made(self._from_numpy(array))

    def _count_index(self, index):
        for leaf in tree_leaves(index):
            if isinstance(leaf, Tensor) and leaf.ndim:
                self.uploads += leaf in self._host
                if leaf.dtype == torch.bool:
                    self.reads["bool index"] += 1
