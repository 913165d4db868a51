"""Settings and fixtures of the whole suite."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mhc_diag_cli.app import main

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share two cores


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly when the page was not tested in a browser."""
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        terminalreporter.write_sep("!", "no chromium: the browser tests did NOT run", red=True)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One command that has run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything beside it fails."""
        content = json.loads(self.out, parse_constant=_refuse)
        assert isinstance(content, dict)
        return content


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not strict JSON")


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``mhc-diag`` with the given words in this process."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*words: Any) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(code=end.value.code, out=captured.out, err=captured.err)

    return call


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small checkpoint of each connection; clearly signed and non-symmetric matrices."""
    import torch

    from mhc_diag.zoo.models import ZooConfig, ZooModel, save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints")
    paths: dict[str, Path] = {}
    for kind in ("residual", "hc", "mhc", "mhc-lite"):
        torch.manual_seed(0)
        config = ZooConfig(connection=kind, n_blocks=3, width=16, n_heads=2, context=16)  # type: ignore[arg-type]  # the words above
        model = ZooModel(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".hc_" in name:
                    parameter.add_(0.2 * torch.randn(parameter.shape))
        paths[kind] = save_checkpoint(folder / f"{kind}.pt", model, step=40)
    return paths
