"""How much memory a piece of work holds at once, in tensors."""

import weakref

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Holding(TorchDispatchMode):
    """Counts, while it is open, the bytes of the tensors that were made meanwhile and are still there.

    most: the most at once. What an operation takes for itself while it runs, and gives back, is not seen. Torch's own profiler
    sees it, and writes on the page; and what the process holds says little where freed memory is kept for the next step.
    """

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self._known = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        for each in tree_leaves((arguments, options)):
            self._count(each, made=False)
        found = function(*arguments, **options)
        for each in tree_leaves(found):
            self._count(each, made=True)
        return found

    def _count(self, tensor, made):
        if not isinstance(tensor, Tensor) or tensor.is_sparse:
            return
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        size = storage.nbytes() if made else 0
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, place, size):
        self._known.discard(place)
        self.now -= size
