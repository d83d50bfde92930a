"""Convolt's program, which comparisons run beside PyTorch."""
import json
import os
import subprocess
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CONVOLT = os.environ.get("CONVOLT", os.path.join(ROOT, "build", "cuda", "convolt"))


class Failed(Exception):
    """A measurement that did not come about, and why."""


def environment():
    """What the program gets. The libraries that it brings along must not be PyTorch's."""
    return {**os.environ, "LD_LIBRARY_PATH": os.environ.get("CONVOLT_LIBRARY_PATH", os.environ.get("LD_LIBRARY_PATH", ""))}


def run(arguments, limit, program=CONVOLT):
    """Standard output."""
    try:
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=limit, env=environment())
    except subprocess.TimeoutExpired as e:
        raise Failed(f"convolt {arguments[0]} did not end within {limit:.0f} s") from e
    except OSError as e:
        raise Failed(f"convolt {arguments[0]} could not be started: {e}") from e
    if done.returncode != 0:
        raise Failed(f"convolt {arguments[0]} ended with exit code {done.returncode}: {done.stderr[-400:]}")
    return done.stdout


def bench(arguments, limit, program=CONVOLT):
    """The record of `convolt bench`."""
    return json.loads(run(["bench", *arguments, "--json"], limit, program))


def network_text(model, program=CONVOLT):
    """The description of a model that Convolt knows by name, or of a network file."""
    if model.endswith(".json"):
        with open(model) as file:
            return json.load(file)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.json")
        run(["inspect", "--model", model, "--export-json", path], 60, program)
        with open(path) as file:
            return json.load(file)
