"""A training step in PyTorch: forward, backward, SGD with momentum 0.9 and weight decay 1e-4, as `convolt bench step` takes it."""
import torch
import torch.nn.functional as F

from networks import Network, side_of
from windows import milliseconds

AUTOCAST = {"f16": torch.float16, "bf16": torch.bfloat16}


class Training:
    """dtype: f32, tf32, or f16 and bf16 by autocast. mode: None for eager, or one of torch.compile's."""

    def __init__(self, text, batch, dtype, device="cpu", channels_last=True, mode=None):
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
        fused = {"fused": True} if device == "cuda" else {}
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, **fused)
        self.scaler = torch.amp.GradScaler(device) if dtype == "f16" and device == "cuda" else None
        self.network = torch.compile(network, mode=mode) if mode else network

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, dtype=AUTOCAST.get(self.dtype, torch.bfloat16), enabled=self.dtype in AUTOCAST):
            logits = self.network(self.x)
        loss = F.cross_entropy(logits.float(), self.y)
        if self.scaler:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            self.optimizer.step()
        return loss.detach()

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def window(self, steps):
        return milliseconds(self.step, self.wait, steps, warm=1)  # warm again after the other program ran
