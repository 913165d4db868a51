"""Where a rank stands, and what hooks see of tensors that are spread over ranks.

The process group is torch's fake one: this process is rank 3 of 8 and nobody answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from monitored import IDS, zoo
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

import mhc_diag as md
from mhc_diag.adapters.modules import find_sites
from mhc_diag.errors import CaptureError, OptionError
from mhc_diag.recording import is_rehearsal
from mhc_diag.runs.distributed import layout_of
from mhc_diag.spread import is_spread, part_here, whole_here


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("fake", store=FakeStore(), rank=3, world_size=8)
    yield
    dist.destroy_process_group()


@pytest.fixture
def pair(group: None) -> DeviceMesh:
    """Ranks 2 and 3."""
    return init_device_mesh("cpu", (4, 2), mesh_dim_names=("dp", "tp"))["tp"]


@pytest.mark.usefixtures("group")
def test_a_mesh_says_where_a_rank_stands() -> None:
    mesh = init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=("pp", "dp_shard", "tp"))
    layout = layout_of(mesh)
    assert (layout.rank, layout.world, layout.declared) == (3, 8, True)
    assert (layout.stage, layout.replica, layout.n_replicas) == (0, 1, 2)
    assert (layout.copy, layout.n_copies) == (1, 2)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("names", [("dp_replicate", "cp", "ep"), ("ddp", "fsdp", "sequence")])
def test_all_dimensions_over_tokens_count_together(names: tuple[str, str, str]) -> None:
    layout = layout_of(init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=names))
    assert (layout.replica, layout.n_replicas, layout.n_copies) == (3, 8, 1)


@pytest.mark.usefixtures("group")
def test_without_a_mesh_nothing_is_declared() -> None:
    layout = layout_of(None)
    assert (layout.rank, layout.world, layout.declared, layout.n_replicas) == (3, 8, False, 1)


@pytest.mark.usefixtures("group")
def test_dimensions_must_have_names() -> None:
    with pytest.raises(OptionError, match="mesh dimension ''"):
        layout_of(init_device_mesh("cpu", (8,)))


def test_without_a_process_group_a_rank_is_the_whole_job() -> None:
    layout = layout_of(None)
    assert (layout.world, layout.writes, layout.share(256)) == (1, True, 256)


@pytest.mark.parametrize("dim", [0, 1])
def test_tokens_of_this_rank_are_taken_from_a_spread_tensor(pair: DeviceMesh, dim: int) -> None:
    here = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    spread = DTensor.from_local(here, pair, [Shard(dim)])
    got = part_here((spread, {"y": [spread]}, 7))
    assert torch.equal(got[0], here)
    assert torch.equal(got[1]["y"][0], here)
    assert got[2] == 7
    assert is_spread((1, {"y": [spread]}))
    assert not is_spread(got)


@pytest.mark.parametrize("placement", [Shard(2), Shard(3), Partial()])
def test_what_means_nothing_on_one_rank_is_left_alone(pair: DeviceMesh, placement: Any) -> None:
    spread = DTensor.from_local(torch.ones(2, 3, 4, 4), pair, [placement])
    assert part_here(spread) is spread


def test_only_whole_parameters_are_read(pair: DeviceMesh) -> None:
    whole = DTensor.from_local(torch.ones(2, 3), pair, [Replicate()])
    assert torch.equal(whole_here(whole), torch.ones(2, 3))
    assert torch.equal(whole_here(torch.ones(1)), torch.ones(1))
    with pytest.raises(CaptureError, match="each rank has a part of them"):
        whole_here(DTensor.from_local(torch.ones(2, 3), pair, [Shard(0)]))


@pytest.mark.parametrize("placement", [Shard(2), Shard(3)])
def test_matrices_that_are_cut_are_refused(pair: DeviceMesh, placement: Any) -> None:
    class Cut(nn.Module):
        def forward(self, x: torch.Tensor) -> DTensor:
            return DTensor.from_local(x, pair, [placement])

    model = nn.Sequential(Cut())
    tap = md.tap(lambda module, args, output: output, stored="M")
    x = torch.ones(2, 3, 4, 2) if placement.dim == 3 else torch.ones(2, 3, 2, 4)
    with (
        md.capture(model, taps={"0": tap}),
        pytest.raises(CaptureError, match="spread over ranks along streams"),
    ):
        model(x)


def test_ids_that_are_spread_have_a_digest(pair: DeviceMesh) -> None:
    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = zoo()

        def forward(self, ids: DTensor) -> torch.Tensor:
            return self.inner(ids.to_local())

    model = Local()
    with md.capture(model) as capture, torch.no_grad():
        model(DTensor.from_local(IDS, pair, [Replicate()]))
    assert capture.trace().probe.inputs.startswith("sha256:")


def test_names_are_those_of_the_model_inside_its_wrappers() -> None:
    class DistributedDataParallel(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    bare = [site.name for site in find_sites(zoo())]
    assert [site.name for site in find_sites(DistributedDataParallel(zoo()))] == bare
    inner = zoo()
    inner.blocks[1] = DistributedDataParallel(inner.blocks[1])
    assert [site.name for site in find_sites(inner)] == bare
    own = nn.ModuleDict({"module": zoo()})
    assert [site.name for site in find_sites(own)] == [f"module.{name}" for name in bare]


def test_no_rehearsal_outside_a_pipeline() -> None:
    assert not is_rehearsal()


def test_a_rehearsal_of_a_stage_is_no_forward_pass() -> None:
    scope: dict[str, Any] = {"__name__": "torch.distributed.pipelining.stage"}
    source = """
def _forward_metadata_inference(model, ids):
    return model(ids)

def forward_maybe_with_nosync(model, ids):
    return model(ids)

def forward_one_chunk(model, ids):
    return forward_maybe_with_nosync(model, ids)
"""
    exec(source, scope)
    model = zoo()
    with torch.no_grad(), md.capture(model) as capture:
        scope["_forward_metadata_inference"](model, IDS)
        with pytest.raises(CaptureError, match="no forward pass"):
            capture.trace()
        scope["forward_one_chunk"](model, IDS)
    with torch.no_grad(), md.capture(model) as plain:
        model(IDS)
    got, want = capture.trace(), plain.trace()
    assert got.probe == want.probe
    np.testing.assert_array_equal(got.chains[0].M, want.chains[0].M)


@pytest.mark.filterwarnings("error")
def test_a_job_of_one_process_needs_nobody(tmp_path: Path) -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    try:
        model = zoo()
        with md.Monitor(model, tmp_path / "run", every=1) as monitor:
            model(IDS)
            assert monitor.step(0) is not None
    finally:
        dist.destroy_process_group()
