"""How far a network's elements are from the kinks of its activations and pools.

At a kink of an activation, and where the two largest of a pool's window are equal, the rounding of a float decides on which side an
element is, and a whole part of the gradient comes or goes with it: a comparison there would measure luck.
"""
import torch
from torch.nn import functional


class Kinks:
    """While one is active, every activation and pool with kinks leaves here how far its elements are from them."""

    KINKS = {"relu": (0,), "hardtanh": (0, 6), "relu6": (0, 6), "hardswish": (-3, 3), "hardsigmoid": (-3, 3)}

    def __init__(self):
        self.distances = []  # of each call, a tensor

    def __enter__(self):
        self.originals = {name: getattr(functional, name) for name in [*self.KINKS, "max_pool2d"]}
        for name, kinks in self.KINKS.items():
            setattr(functional, name, self.watched(self.originals[name], kinks))
        functional.max_pool2d = self.max_pool
        return self

    def __exit__(self, *_):
        for name, original in self.originals.items():
            setattr(functional, name, original)

    def watched(self, original, kinks):
        def call(x, *arguments, **options):
            self.distances.append(torch.stack([(x.detach() - k).double() for k in kinks]))
            return original(x, *arguments, **options)
        return call

    def max_pool(self, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        room = [padding, padding + (stride - 1 if ceil_mode else 0)] * 2
        windows = functional.pad(x.detach(), room, value=-float("inf")).unfold(2, kernel_size, stride).unfold(3, kernel_size, stride)
        largest = windows.flatten(4).topk(2).values.double()
        # Windows of zeros alone pass no gradient through the relu before them.
        apart = torch.where(largest[..., 0] != 0, largest[..., 0] - largest[..., 1], torch.inf)
        self.distances.append(apart[None])
        return self.originals["max_pool2d"](x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def distances(network, images):
    with Kinks() as kinks, torch.no_grad():
        network(images)
    return kinks.distances


def rounding_of(rough, exact):
    """The most by which float moves an element of a tensor."""
    return float((rough - exact).nan_to_num(posinf=0, neginf=0, nan=0).abs().max())


def clearance(of, rounding):
    """The smallest distance from a kink, in units of the rounding of the element's tensor."""
    return min((float(d.abs().min()) / r for d, r in zip(of, rounding) if r > 0), default=float("inf"))
