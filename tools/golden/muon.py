#!/usr/bin/env python3
"""K. Jordan's Muon in PyTorch; run in the root of the repository, writes tests/kernels/golden/muon.txt: a matrix after three steps, in
double. Recorded with torch 2.15."""
import torch

A, B, C = 3.4445, -4.7750, 2.0315


def orthogonal(u, iterations):
    """On the side of the shorter of rows and columns."""
    x = u / (torch.linalg.norm(u) + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    for _ in range(iterations):
        gram = x @ x.mT
        x = A * x + (B * gram + C * torch.linalg.matrix_power(gram, 2)) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """The weights of convolutions; all else by SGD with Nesterov momentum."""

    def __init__(self, params, lr, momentum=0.9, matrix_momentum=0.95, iterations=3, renormalise=False, weight_decay=0.0):
        super().__init__(params, {})
        self.lr, self.iterations, self.renormalise, self.weight_decay = lr, iterations, renormalise, weight_decay
        self.momentum, self.matrix_momentum = momentum, matrix_momentum

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            if p.dim() != 4:
                self.sgd(p)
                continue
            v = self.state[p].setdefault("v", torch.zeros_like(p)).mul_(self.matrix_momentum).add_(p.grad)
            if self.renormalise:
                p.mul_(len(p) ** 0.5 / p.norm())
            p.mul_(1 - self.lr * self.weight_decay)
            u = p.grad + self.matrix_momentum * v
            p.sub_(self.lr * orthogonal(u.flatten(1), self.iterations).reshape(p.shape))

    def sgd(self, p):
        g = p.grad + self.weight_decay * p
        v = self.state[p].setdefault("v", torch.zeros_like(p)).mul_(self.momentum).add_(g)
        p.sub_(self.lr * (g + self.momentum * v))


# rows, columns, rate, momentum, iterations, renormalise
CASES = [(6, 27, 0.25, 0.6, 3, 1), (12, 5, 0.02, 0.95, 5, 0), (40, 36, 0.1, 0.9, 2, 1), (1, 9, 0.5, 0.0, 1, 0)]

if __name__ == "__main__":
    with open("tests/kernels/golden/muon.txt", "w") as out:
        for rows, columns, rate, momentum, iterations, renormalise in CASES:
            i = torch.arange(rows * columns)
            w = ((i * 37 % 97 - 48).double() / 64).view(rows, columns, 1, 1).requires_grad_()
            muon = Muon([w], rate, matrix_momentum=momentum, iterations=iterations, renormalise=renormalise)
            for step in range(3):
                w.grad = (((i * i * 53 + step * 29) % 101 - 50).double() / 128).view(w.shape)
                muon.step()
            numbers = " ".join(f"{x:.9g}" for x in w.flatten().tolist())
            out.write(f"{rows} {columns} {rate} {momentum} {iterations} {renormalise} {numbers}\n")
