"""A training step in PyTorch: forward, backward and update, as `convolt bench step` takes it. The update is SGD's with momentum 0.9 and
weight decay 1e-4, or that of a recipe."""
import torch
import torch.nn.functional as F

from muon import Muon
from networks import Network, place_of, side_of
from windows import milliseconds

AUTOCAST = {"f16": torch.float16, "bf16": torch.bfloat16}


def optimizers_of(network, recipe, device, compiled):
    """One, or with a recipe two: Muon, and SGD for what is no weight of a convolution. What the recipe freezes then needs no gradient."""
    common = {"lr": 1e-4, "weight_decay": 1e-4}
    fused = {"fused": True} if device == "cuda" else {}
    if recipe is None:
        return [torch.optim.SGD(network.parameters(), momentum=0.9, **common, **fused)]
    matrices, others = [], []
    for name, parameter in network.named_parameters():
        if recipe.freezes(place_of(name)):
            parameter.requires_grad_(False)
        else:
            (matrices if parameter.dim() == 4 else others).append(parameter)
    return [Muon(matrices, momentum=recipe.muon_momentum, iterations=recipe.muon_iterations, compiled=compiled, **common),
            torch.optim.SGD(others, momentum=recipe.momentum, nesterov=True, **common, **fused)]


class Training:
    """dtype: f32, tf32, or f16 and bf16 by autocast. mode: None for eager, or one of torch.compile's. recipe: of recipes.py, or None."""

    def __init__(self, text, batch, dtype, device="cpu", channels_last=True, mode=None, recipe=None):
        torch.manual_seed(0)
        self.device, self.dtype = device, dtype
        if device == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
        layout = torch.channels_last if channels_last else torch.contiguous_format
        side = side_of(text)
        network = Network(text).train().to(device, memory_format=layout)
        self.x = torch.randn(batch, text["input"].get("channels", 3), side, side).to(device, memory_format=layout)
        self.y = (torch.arange(batch) % 10).to(device)
        self.optimizers = optimizers_of(network, recipe, device, mode is not None)
        # Small enough that no step is skipped: the fused SGD of PyTorch 2.11 reads a momentum that was never written after a first step
        # that was (its losses are NaN), and a skipped update costs no time.
        self.scaler = torch.amp.GradScaler(device, init_scale=2.0 ** 10) if dtype == "f16" and device == "cuda" else None
        self.network = torch.compile(network, mode=mode) if mode else network

    def step(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, dtype=AUTOCAST.get(self.dtype, torch.bfloat16), enabled=self.dtype in AUTOCAST):
            logits = self.network(self.x)
        loss = F.cross_entropy(logits.float(), self.y)
        if self.scaler:
            self.scaler.scale(loss).backward()
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            self.scaler.update()
        else:
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
        return loss.detach()

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def window(self, steps):
        return milliseconds(self.step, self.wait, steps, warm=1)  # warm again after the other program ran
