"""Where the tensors of a thing are, however deep they lie in it; and whether two things hold the same numbers."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def tensors(thing, name: str = "it", known: set | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that the thing holds, with the way to it: in lists, dictionaries, modules and the attributes of objects."""
    known = set() if known is None else known
    if id(thing) in known or isinstance(thing, (str, type)):
        return
    known.add(id(thing))
    if isinstance(thing, Tensor):
        yield name, thing
        if thing.grad is not None:
            yield f"{name}.grad", thing.grad
        return
    if isinstance(thing, nn.Module):
        inside = [*thing.named_parameters(), *thing.named_buffers()]
        # Its other attributes too: what a layer keeps beside its parameters does not move with it.
        inside += [(key, value) for part in thing.modules() for key, value in vars(part).items() if isinstance(value, Tensor)]
    elif isinstance(thing, Mapping):
        inside = list(thing.items())
    elif isinstance(thing, (list, tuple, set)):
        inside = list(enumerate(thing))
    else:
        inside = list(getattr(thing, "__dict__", {}).items())
    for key, value in inside:
        yield from tensors(value, f"{name}.{key}", known)


def assert_on(device: torch.device, thing, name: str = "it", *, but: tuple[str, ...] = ()) -> int:
    """All tensors of the thing are on the device but those whose way has one of these words in it; how many there are."""
    found = list(tensors(thing, name))
    elsewhere = {way: str(each.device) for way, each in found if each.device != device and not any(word in way for word in but)}
    assert not elsewhere, f"not on {device}: {elsewhere}"
    return len(found)


def assert_alike(found, wanted, *, tolerance: float = 1e-3, name: str = "it") -> None:
    """Both hold the same tensors and numbers: within a share of the largest number of each, for GPUs add in another order."""
    assert type(found) is type(wanted) or {type(found), type(wanted)} <= {float, int}, name
    if isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys(), name
        for key, value in wanted.items():
            assert_alike(found[key], value, tolerance=tolerance, name=f"{name}.{key}")
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted), name
        for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_alike(one, other, tolerance=tolerance, name=f"{name}.{place}")
    elif isinstance(wanted, Tensor):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), name
        found, wanted = found.detach().cpu(), wanted.detach().cpu()
        if wanted.dtype in (torch.long, torch.bool, torch.uint8):
            assert torch.equal(found, wanted), name
        elif wanted.numel():
            gap, size = float((found - wanted).abs().max()), float(wanted.abs().max())
            assert gap <= tolerance * size, f"{name}: {gap:.3g} apart, where the largest number is {size:.3g}"
    elif isinstance(wanted, float):
        assert abs(found - wanted) <= tolerance * abs(wanted), f"{name}: {found} and {wanted}"
    else:
        assert found == wanted, name
