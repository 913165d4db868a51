"""What the monitor costs a training step, as ratios of steps that alternate in one run.

    python benchmarks/monitor_overhead.py [--model zoo|deepseek] [--rounds 40] [--json FILE]

Each round trains a few steps in every arm, in shuffled order, on one model: without anything (the
denominator), with a monitor that does not record, with a monitor that records every step, with
torch hooks that read one number per site with ``.item()``, and, where it is installed and knows the
model, with the mHC analyzer of the package ``innards``. ``every=50`` is
one recorded step in fifty and forty-nine calls of ``monitor.step`` that find nothing to do: between
recorded steps there is no hook on the model, so that nothing else can cost. Intervals are 95 %
bootstrap intervals over rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mhc_diag as md
from mhc_diag.adapters.modules import find_sites
from mhc_diag.zoo.models import ZooConfig, ZooModel

STEPS = 2
"""Training steps per arm and round."""


def zoo() -> tuple[torch.nn.Module, torch.Tensor]:
    """The zoo's mHC model at the demonstration's size, and a batch."""
    torch.manual_seed(0)
    return ZooModel(ZooConfig(connection="mhc")), torch.randint(0, 256, (8, 64))


def deepseek() -> tuple[torch.nn.Module, torch.Tensor]:
    """A tiny DeepSeek-V4 of transformers, and a batch."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from models import tiny_deepseek_v4

    return tiny_deepseek_v4(6).train(), torch.randint(1, 64, (4, 64))


@contextmanager
def nothing(model: torch.nn.Module, folder: str) -> Iterator[Callable[[int], Any]]:
    """The denominator."""
    yield lambda step: None


@contextmanager
def idle(model: torch.nn.Module, folder: str) -> Iterator[Callable[[int], Any]]:
    """A monitor between recorded steps."""
    with md.Monitor(model, folder, every=lambda step: step < 0) as monitor:
        yield monitor.step


@contextmanager
def every_step(model: torch.nn.Module, folder: str) -> Iterator[Callable[[int], Any]]:
    """A monitor that records each step, 256 tokens, the default ids."""
    with md.Monitor(model, folder, every=1, tokens=256) as monitor:
        yield monitor.step


@contextmanager
def item_hooks(model: torch.nn.Module, folder: str) -> Iterator[Callable[[int], Any]]:
    """What people write first: a hook per site, one number read from the device at once."""
    kept: list[float] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        H_res = output[1]
        kept.append(H_res.detach().sum(-1).abs().amax(-1).mean().item())

    handles = [site.module.register_forward_hook(hook) for site in find_sites(model)]
    try:
        yield lambda step: kept.clear()
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def innards(model: torch.nn.Module, folder: str) -> Iterator[Callable[[int], Any]]:
    """The analyzer of innards: token means on every pass, its analysis after each step."""
    from innards.features.base import TurnData
    from innards.features.mhc import MHCAnalyzer

    analyzer, captures, handles = MHCAnalyzer(), {}, []

    class Recorder:
        """The two calls that the analyzer's probe makes."""

        def hook(self, feature: str, module: Any, probe: Any) -> None:
            handles.append(module.register_forward_hook(probe))

        def put(self, feature: str, name: str, layer: int, tensor: Any) -> None:
            captures.setdefault(name, {}).setdefault(layer, []).append((0, tensor.detach().cpu()))

    detection = analyzer.detect(model.config.to_dict())
    analyzer.attach(model, detection, Recorder())

    def settle(step: int) -> None:
        turn = TurnData("mhc", detection, dict(captures), 256, [], {}, {})
        analyzer.analyze(turn)
        captures.clear()

    try:
        yield settle
    finally:
        for handle in handles:
            handle.remove()


def time_arm(
    arm: Any, model: torch.nn.Module, batch: torch.Tensor, optimizer: torch.optim.Optimizer
) -> tuple[float, float]:
    """CPU seconds of ``STEPS`` training steps in the arm, and of the calls after them alone.

    Entering and leaving are not counted.

    One thread trains, so CPU time is the time that a step takes on a machine of its own; the wall
    clock of a shared machine says more about the neighbours.
    """
    with tempfile.TemporaryDirectory() as folder, arm(model, str(Path(folder) / "run")) as after:
        for step in range(2):  # the monitor proves the orientation once, and learns the stride
            train_step(model, batch, optimizer)
            after(step)
        started, calls = time.process_time(), 0.0
        for step in range(2, STEPS + 2):
            train_step(model, batch, optimizer)
            begun = time.process_time()
            after(step)
            calls += time.process_time() - begun
        return time.process_time() - started, calls


def train_step(
    model: torch.nn.Module, batch: torch.Tensor, optimizer: torch.optim.Optimizer
) -> None:
    """Forward, backward, update."""
    output = model(batch)
    loss = getattr(output, "logits", output).float().square().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Median of the ratios with a 95 % bootstrap interval."""
    generator = np.random.default_rng(0)
    draws = generator.choice(ratios, size=(2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["zoo", "deepseek"], default="zoo")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, batch = zoo() if options.model == "zoo" else deepseek()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    arms = {"nothing": nothing, "idle": idle, "every step": every_step, ".item() hooks": item_hooks}
    if options.model == "deepseek":
        try:
            import innards.features.mhc  # noqa: F401  whether it is installed
        except ImportError:
            print("innards is not installed: that arm is left out")
        else:
            arms["innards"] = globals()["innards"]
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    idle_calls = []
    for _ in range(options.rounds):
        for name in random.sample(list(arms), len(arms)):
            whole, calls = time_arm(arms[name], model, batch, optimizer)
            seconds[name].append(whole)
            if name == "idle":
                idle_calls.append(calls)
    base = np.array(seconds["nothing"])
    print(
        f"{options.model}: {np.median(base) / STEPS * 1e3:.1f} ms per step, {options.rounds} rounds"
    )
    ratios = {name: np.array(times) / base for name, times in seconds.items() if name != "nothing"}
    waiting = np.array(idle_calls) / base
    ratios["every=50"] = 1 + (ratios["every step"] - 1 + 49 * waiting) / 50
    result = {name: interval(values) for name, values in ratios.items()}
    for name, (middle, low, high) in result.items():
        print(f"  {name:14} {middle:.3f}  [{low:.3f}, {high:.3f}]  of a step without anything")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
