"""What networks are trained by, where that is not SGD: the same for `convolt bench step` and for PyTorch."""
import re
import typing


class Recipe(typing.NamedTuple):
    """Muon for the weights of convolutions, SGD with Nesterov momentum for the rest."""
    momentum: float  # of SGD
    muon_momentum: float
    muon_iterations: int
    frozen: tuple = ()  # patterns of names

    def freezes(self, name):
        return any(re.search(pattern, name) for pattern in self.frozen)

    def flags(self):
        """Muon's weights are scaled to the norm sqrt(outputs) before each update."""
        freeze = [word for pattern in self.frozen for word in ("--freeze", pattern)]
        return ["--opt", "muon", "--momentum", self.momentum, "--muon-momentum", self.muon_momentum, "--muon-iterations", self.muon_iterations,
                "--muon-renormalize", *freeze]


RECIPES = {"airbench94": Recipe(0.85, 0.6, 3, (r"^whiten\.weight$", r"norm\d\.weight$"))}  # as recipes/airbench94.toml


def step_flags(model):
    return RECIPES[model].flags() if model in RECIPES else []
