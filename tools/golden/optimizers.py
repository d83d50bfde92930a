#!/usr/bin/env python3
"""Writes tests/kernels/golden/optimizers.txt: weights after four steps of torch.optim's and timm's optimizers.

Two tensors of 11 and 6 elements; weights and gradients are multiples of a power of two, so that both sides start from
the same bits. Run in the root of the repository.
"""
import timm.optim
import torch

SIZES, STEPS = (11, 6), 4


def weight(i):
    return (i * 37 % 97 - 48) / 64


def gradient(i, step):
    return ((i * 53 + step * 29) % 101 - 50) / 128


CASES = {
    "sgd rate=0.125 momentum=0.9": lambda p: torch.optim.SGD(p, 0.125, momentum=0.9),
    "sgd rate=0.125 momentum=0 wd=0.1": lambda p: torch.optim.SGD(p, 0.125, weight_decay=0.1),
    "sgd rate=0.125 momentum=0.9 nesterov=1 wd=0.01":
        lambda p: torch.optim.SGD(p, 0.125, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd rate=0.125 momentum=0.9 clip=0.5": lambda p: torch.optim.SGD(p, 0.125, momentum=0.9),
    "adam rate=0.01": lambda p: torch.optim.Adam(p, 0.01),
    "adam rate=0.01 wd=0.1 beta1=0.8 beta2=0.95 eps=0.001":
        lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=0.001),
    "adamw rate=0.01 wd=0.05": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.05),
    "adamw rate=0.01 wd=0.05 clip=0.25": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.05),
    "rmsprop rate=0.01 momentum=0": lambda p: torch.optim.RMSprop(p, 0.01),
    "rmsprop rate=0.01 momentum=0.9 wd=0.1 alpha=0.9 eps=0.0316":
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, weight_decay=0.1, alpha=0.9, eps=0.0316),
    "lamb rate=0.01 eps=1e-6 clip=1": lambda p: timm.optim.Lamb(p, 0.01, weight_decay=0),
    "lamb rate=0.01 wd=0.02 eps=1e-6 clip=1": lambda p: timm.optim.Lamb(p, 0.01, weight_decay=0.02),
    "lamb rate=0.125 wd=0.5 eps=1e-6 clip=0.25": lambda p: timm.optim.Lamb(p, 0.125, weight_decay=0.5, max_grad_norm=0.25),
    "lamb rate=0.01 wd=0.1 beta1=0.8 beta2=0.95 eps=0.001":
        lambda p: timm.optim.Lamb(p, 0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=0.001, max_grad_norm=None),
}

with open("tests/kernels/golden/optimizers.txt", "w") as out:
    for case, make in CASES.items():
        settings = dict(word.split("=") for word in case.split()[1:])
        tensors = [torch.tensor([weight(i) for i in range(n)], requires_grad=True) for n in SIZES]
        optimizer = make(tensors)
        for step in range(STEPS):
            for t in tensors:
                t.grad = torch.tensor([gradient(i, step) for i in range(len(t))])
            if "clip" in settings and not case.startswith("lamb"):  # which clips by itself
                torch.nn.utils.clip_grad_norm_(tensors, float(settings["clip"]))
            optimizer.step()
        values = " ".join(f"{v:.9g}" for t in tensors for v in t.tolist())
        out.write(f"{case} : {values}\n")
