"""Muon in PyTorch, by the formulas of kernels/muon.h and kernels/optimizer.h: K. Jordan, "Muon: an optimizer for hidden layers in neural
networks", 2024."""
import torch


def orthogonal(u, iterations):
    """A matrix of about the singular vectors of u, and singular values of about 1, by iterations of Newton and Schulz."""
    turned = u.shape[0] > u.shape[1]
    x = u.T if turned else u
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if turned else x


class Muon(torch.optim.Optimizer):
    """Of weights [outputs, ...], each scaled to the norm sqrt(outputs) before its update. On a GPU the iterations run in bf16, as published.
    compiled: by torch.compile."""

    def __init__(self, weights, lr, momentum, iterations, weight_decay, compiled=False):
        super().__init__(weights, {"lr": lr, "momentum": momentum, "iterations": iterations, "weight_decay": weight_decay})
        self.orthogonal = torch.compile(orthogonal) if compiled else orthogonal

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.update(weight, group)

    def update(self, weight, group):
        rows, lr, momentum = weight.shape[0], group["lr"], group["momentum"]
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        velocity = state["velocity"]
        velocity.mul_(momentum).add_(weight.grad)
        u = weight.grad.add(velocity, alpha=momentum).reshape(rows, -1)
        direction = self.orthogonal(u.bfloat16() if u.is_cuda else u, group["iterations"]).to(weight.dtype)
        weight.mul_(rows ** 0.5 / weight.norm() * (1 - lr * group["weight_decay"]))
        weight.sub_(direction.reshape(weight.shape), alpha=lr)
