"""Parts of ranks put together, on traces made by hand."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import make_chain, signed_matrices, trace_of

from mhc_diag.errors import CaptureError, OptionError, RunError
from mhc_diag.metrics import measure
from mhc_diag.runs.merging import copies_differ, merge_scalars, merge_traces, stacked_names
from mhc_diag.runs.parts import Layout, Part
from mhc_diag.trace import Skipped, Trace

M = signed_matrices((6, 8, 3, 3))
SPLIT = (slice(0, 2), slice(2, 6))
IDS = ("composite.forward.amax.mean", "composite.backward.amax.p99", "composite.forward.amin.min")


def piece(M: np.ndarray, *, block: int = 0, inputs: str = "sha256:a") -> Trace:
    """A rank's trace, its first block named ``block``."""
    trace = trace_of([make_chain(M)])
    chain = trace.chains[0]
    sites = tuple(
        replace(site, name=site.name.replace(f"h.{site.layer}.", f"h.{block + (site.layer or 0)}."))
        for site in chain.sites
    )
    probe = replace(trace.probe, tokens=M.shape[1], inputs=inputs)
    return replace(trace, chains=(replace(chain, sites=sites),), probe=probe)


def part(trace: Trace | None, **layout: Any) -> Part:
    return Part(layout=Layout(world=4, **{"declared": True} | layout), trace=trace)


def whole(parts: list[Part], **options: Any) -> Trace:
    trace = merge_traces(parts, **options)
    assert trace is not None
    return trace


def assert_reads_as(trace: Trace, M: np.ndarray) -> None:
    got, want = measure(trace, IDS), measure(trace_of([make_chain(M)]), IDS)
    for name in IDS:
        np.testing.assert_allclose(got[name].filled(np.nan), want[name].filled(np.nan), rtol=1e-12)
    assert [site.index for site in trace.sites] == list(range(len(M)))
    assert trace.probe.tokens == M.shape[1]


def test_stages_come_after_one_another_whatever_the_order_of_ranks() -> None:
    parts = [
        part(piece(M[4:], block=2), rank=0, stage=2),
        part(None, rank=1, stage=0, holds=False),
        part(piece(M[:4]), rank=2, stage=1),
    ]
    trace = whole(parts)
    assert_reads_as(trace, M)
    assert [site.layer for site in trace.sites] == [0, 0, 1, 1, 0, 0]
    assert [site.name.split(".")[2] for site in trace.sites] == ["0", "0", "1", "1", "2", "2"]
    assert trace.coverage.expected == trace.coverage.measured == 6


def test_replicas_stand_side_by_side() -> None:
    parts = [
        part(piece(M[:, 5:], inputs="sha256:b"), rank=1, replica=1, n_replicas=2),
        part(piece(M[:, :5]), rank=0, replica=0, n_replicas=2),
    ]
    trace = whole(parts)
    np.testing.assert_array_equal(trace.chains[0].M, M)
    assert_reads_as(trace, M)
    assert trace.probe.inputs == "sha256:a; sha256:b"


def test_stages_and_replicas_and_copies_at_once() -> None:
    parts = [
        part(piece(M[rows, :][:, tokens], block=rows.start // 2), **place)
        for stage, rows in enumerate((slice(0, 4), slice(4, 6)))
        for replica, tokens in enumerate((slice(0, 3), slice(3, 8)))
        for copy in range(2)
        for place in [{"stage": stage, "replica": replica, "copy": copy, "n_copies": 2}]
    ]
    assert_reads_as(whole(parts), M)


def test_equal_names_of_stages_get_the_stage_before_them() -> None:
    trace = whole([part(piece(M[:2]), stage=1), part(piece(M[2:4]), stage=3)])
    names = [site.name for site in trace.sites]
    assert names[0] == "stage1.transformer.h.0.hc_attn"
    assert names[2] == "stage3.transformer.h.0.hc_attn"
    assert stacked_names({3: ["a"], 1: ["a"]}) == {1: ("stage1.a",), 3: ("stage3.a",)}
    assert stacked_names({3: ["b"], 1: ["a"]}) == {1: ("a",), 3: ("b",)}


def test_auxiliary_chains_stay_apart_and_come_last() -> None:
    mtp = make_chain(M[4:], name="mtp", start=2, prefix="mtp.h", auxiliary=True)
    last = piece(M[2:4], block=1)
    last = replace(last, chains=(*last.chains, mtp))
    trace = whole([part(piece(M[:2]), stage=0), part(last, stage=1)])
    assert [(chain.name, chain.n_sites) for chain in trace.chains] == [("main", 4), ("mtp", 2)]
    assert [site.index for site in trace.sites] == list(range(6))


def test_chains_of_different_places_are_never_multiplied_across_stages() -> None:
    encoder = [trace_of([make_chain(M[rows], prefix="encoder.h")]) for rows in SPLIT]
    decoder = trace_of([make_chain(M[:2], prefix="decoder.h")])
    both = trace_of(
        [
            make_chain(M[2:], name="encoder", prefix="encoder.h"),
            make_chain(M[:2], name="decoder", start=4, prefix="decoder.h"),
        ]
    )
    three = whole([part(one, stage=k) for k, one in enumerate([*encoder, decoder])])
    two = whole([part(encoder[0], stage=0), part(both, stage=1)])
    for trace in (three, two):
        assert [chain.name for chain in trace.chains] == ["encoder", "decoder"]
        assert [site.chain for site in trace.sites] == ["encoder"] * 6 + ["decoder"] * 2
        np.testing.assert_array_equal(trace.chains[0].M, M)
        np.testing.assert_array_equal(trace.chains[1].M, M[:2])


def test_a_site_missing_on_one_replica_is_missing() -> None:
    gap = piece(np.where(np.arange(6)[:, None, None, None] == 3, np.nan, M))
    chain = replace(gap.chains[0], measured=(True, True, True, False, True, True))
    skipped = (Skipped(site=chain.sites[3].name, why="it did not fire"),)
    gap = replace(gap, chains=(chain,), coverage=replace(gap.coverage, measured=5, skipped=skipped))
    trace = whole([part(piece(M), replica=0, n_replicas=2), part(gap, replica=1, n_replicas=2)])
    assert trace.chains[0].measured == (True, True, True, False, True, True)
    assert np.isnan(trace.chains[0].M[3]).all()
    assert (trace.coverage.expected, trace.coverage.measured) == (6, 5)
    assert trace.coverage.skipped == skipped


def test_a_replica_that_heard_nothing_is_left_out_and_half_a_replica_is_refused() -> None:
    heard = [part(piece(M[:4]), stage=0), part(piece(M[4:], block=2), stage=1)]
    silent = [part(None, stage=0, replica=1), part(None, stage=1, replica=1)]
    assert_reads_as(whole([*heard, *silent]), M)
    with pytest.raises(CaptureError, match="rank 3 heard no forward pass although"):
        merge_traces([*heard, part(piece(M[:4]), stage=0, replica=1), replace_rank(silent[1], 3)])
    assert merge_traces(silent) is None


def replace_rank(one: Part, rank: int) -> Part:
    return replace(one, layout=replace(one.layout, rank=rank))


def test_replicas_without_tokens_of_their_own_count_for_nothing() -> None:
    proved = replace(piece(M), orientation=replace(piece(M).orientation, verified="numeric"))
    parts = [part(proved, replica=0, n_replicas=2), part(piece(M[:, :0]), replica=1, n_replicas=2)]
    trace = whole(parts)
    assert_reads_as(trace, M)
    assert trace.orientation.verified == "numeric"


def test_the_orientation_is_as_well_proved_as_on_the_worst_rank() -> None:
    def proved(error: float, verified: Any) -> Trace:
        trace = piece(M)
        there = replace(trace.orientation, verified=verified, error=error, error_transposed=1.0)
        return replace(trace, orientation=there)

    parts = [
        part(proved(1e-7, "numeric"), replica=0, n_replicas=2),
        part(proved(0.5, "declared"), replica=1, n_replicas=2),
    ]
    got = whole(parts).orientation
    assert (got.verified, got.error, got.error_transposed) == ("declared", 0.5, 1.0)


def test_stages_of_different_tokens_are_never_multiplied() -> None:
    parts = [part(piece(M[:4]), stage=0), part(piece(M[4:, :5], block=2), stage=1)]
    with pytest.raises(CaptureError, match=r"\[4, 8, 3, 3\] and \[2, 5, 3, 3\]"):
        merge_traces(parts)


def test_replicas_of_different_sites_are_refused() -> None:
    parts = [part(piece(M), replica=0), part(piece(M[:4]), replica=1)]
    with pytest.raises(CaptureError, match="replicas measured different sites"):
        merge_traces(parts)


def test_more_tokens_than_asked_for_are_thinned_without_repeats() -> None:
    trace = whole([part(piece(M))], tokens=5)
    kept = trace.chains[0].M
    assert kept.shape == (6, 5, 3, 3)
    assert trace.probe.tokens == 5
    rows = [int(np.flatnonzero((M[0] == one).all(axis=(-1, -2)))[0]) for one in kept[0]]
    assert rows == sorted(set(rows))
    np.testing.assert_array_equal(kept, M[:, rows])


def test_without_a_mesh_equal_token_ids_mean_copies() -> None:
    parts = [
        part(piece(M), declared=False, n_replicas=3, replica=0),
        part(piece(M), declared=False, n_replicas=3, replica=1),
        part(piece(M, inputs="sha256:b"), declared=False, n_replicas=3, replica=2),
    ]
    assert whole(parts).probe.tokens == 16


@pytest.mark.parametrize(
    ("inputs", "parameters", "words"),
    [
        (("sha256:a", "no ids"), ("p", "p"), "only some ranks were given token ids"),
        (("no ids", "no ids"), ("p", "q"), "different parameters"),
    ],
)
def test_without_a_mesh_what_may_be_stages_is_not_taken_for_replicas(
    inputs: tuple[str, str], parameters: tuple[str, str], words: str
) -> None:
    parts = [
        part(
            piece(M, inputs=inputs[rank]),
            declared=False,
            n_replicas=2,
            replica=rank,
            parameters=parameters[rank],
        )
        for rank in range(2)
    ]
    with pytest.raises(CaptureError, match=words):
        merge_traces(parts)


def test_supposed_copies_that_saw_other_tokens_become_replicas() -> None:
    def seen(digest: str, **layout: Any) -> Part:
        return replace(part(piece(M), n_copies=2, **layout), tokens_seen=digest)

    assert not copies_differ([seen("a", copy=0), seen("a", copy=1), seen("b", replica=1)])
    assert copies_differ([seen("a", copy=0), seen("b", copy=1)])
    layout = Layout(replica=1, n_replicas=3, copy=1, n_copies=2)
    settled = layout.settled(as_replicas=True)
    assert (settled.replica, settled.n_replicas, settled.copy, settled.n_copies) == (3, 6, 0, 1)
    assert layout.settled(as_replicas=False) == layout


@pytest.mark.parametrize(("tokens", "replicas"), [(256, 7), (5, 8), (1, 1), (10, 5)])
def test_the_shares_of_all_replicas_are_what_was_asked_for(tokens: int, replicas: int) -> None:
    shares = [Layout(replica=r, n_replicas=replicas).share(tokens) for r in range(replicas)]
    assert sum(shares) == tokens
    assert max(shares) - min(shares) <= 1


def test_scalars_are_means_over_the_ranks_that_give_them() -> None:
    parts = [
        replace(part(None), scalars={"lr": 0.1}),
        replace(part(None), scalars={"lr": 0.1, "loss": 1.0}),
        replace(part(None), scalars={"lr": 0.1, "loss": 2.0}),
    ]
    assert merge_scalars(parts) == {"lr": 0.1, "loss": 1.5}
    bad = [replace(part(None), scalars={"loss": one}) for one in (float("inf"), -float("inf"))]
    assert np.isnan(merge_scalars(bad)["loss"])


@pytest.mark.parametrize("kind", [OptionError, RunError, CaptureError])
def test_errors_travel_between_processes(kind: type[OptionError]) -> None:
    there = pickle.loads(pickle.dumps(kind("asked", "came", "do")))
    assert type(there) is kind
    assert (there.asked, there.came, there.do, str(there)) == (
        "asked",
        "came",
        "do",
        "asked: came. do",
    )
