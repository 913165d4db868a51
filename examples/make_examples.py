"""Train the checkpoints of this folder again: ``python examples/make_examples.py``.

Three models of mhc_diag.zoo, 12 blocks (24 sites), width 32, n = 4, 150 steps on the source text of
the standard library of the Python that runs this.
"""

from __future__ import annotations

from pathlib import Path

from mhc_diag.zoo.models import ConnectionKind, ZooConfig, save_checkpoint
from mhc_diag.zoo.trainer import train

STEPS = 150
FILES: dict[ConnectionKind, str] = {"hc": "hc.pt", "mhc": "mhc.pt", "mhc-lite": "mhc_lite.pt"}


def main() -> None:
    """Write the three files beside this script."""
    for connection, name in FILES.items():
        model, history = train(ZooConfig(connection=connection), steps=STEPS, seed=0)
        path = save_checkpoint(Path(__file__).parent / name, model, step=STEPS)
        print(f"{path.name}: {path.stat().st_size} bytes, loss {history[-1].loss:.3f}")


if __name__ == "__main__":
    main()
