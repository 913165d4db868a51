"""Many ranks' traces become the trace that a single process would have made.

Letters: L sites, T tokens, n streams. Replicas (data, context, sequence parallel) bring more tokens
of the same sites; pipeline stages bring more sites of the same tokens; copies (tensor parallel)
bring nothing new. Nothing here talks to another process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mhc_diag.adapters.sites import stem_of
from mhc_diag.errors import CaptureError
from mhc_diag.runs.parts import GIVE_A_MESH, Part
from mhc_diag.trace import Chain, Coverage, Orientation, Site, Skipped, Trace

_ASKED = "put together what the ranks measured"


def copies_differ(parts: Sequence[Part]) -> bool:
    """Whether ranks that should hold copies saw different tokens."""
    seen: dict[tuple[int, int], set[str]] = {}
    for part in parts:
        if part.trace is not None:
            seen.setdefault((part.layout.replica, part.layout.stage), set()).add(part.tokens_seen)
    return any(len(digests) > 1 for digests in seen.values())


def merge_scalars(parts: Sequence[Part]) -> dict[str, float]:
    """Mean of each scalar over the ranks that gave it; the loss of the last stage, for example."""
    given: dict[str, list[float]] = {}
    for part in parts:
        for name, value in part.scalars.items():
            given.setdefault(name, []).append(value)
    return {
        name: values[0] if len(set(values)) == 1 else sum(values) / len(values)
        for name, values in given.items()
    }


def merge_traces(parts: Sequence[Part], *, tokens: int | None = None) -> Trace | None:
    """Put stages after one another and replicas side by side; None when no rank heard anything.

    Args:
        parts: one per rank.
        tokens: keep at most so many of all that the replicas bring, drawn without replacement.

    Raises:
        CaptureError: a stage heard nothing while others did, stages of one replica saw different
            numbers of tokens, or replicas hold different sites.
    """
    replicas: dict[int, list[Part]] = {}
    for part in _distinct([one for one in parts if one.layout.holds and one.layout.copy == 0]):
        replicas.setdefault(part.layout.replica, []).append(part)
    whole = [
        trace for _, stages in sorted(replicas.items()) if (trace := _replica(stages)) is not None
    ]
    if not whole:
        return None
    merged = _beside([one for one in whole if one.chains[0].n_tokens] or whole)
    return merged if tokens is None else _at_most(merged, tokens)


def stacked_names(stages: Mapping[int, Sequence[str]]) -> dict[int, tuple[str, ...]]:
    """Names of the sites of the whole depth: with the stage before them where they collide."""
    names = [name for held in stages.values() for name in held]
    collide = len(set(names)) < len(names)
    return {
        stage: tuple(f"stage{stage}.{name}" if collide else name for name in held)
        for stage, held in sorted(stages.items())
    }


def _distinct(parts: list[Part]) -> list[Part]:
    """Without a mesh, ranks that were given the same token ids are copies of one another."""
    heard = [(one, one.trace) for one in parts if one.trace is not None]
    if len(heard) < 2 or heard[0][0].layout.declared or heard[0][0].layout.n_replicas == 1:
        return parts
    hashed = [trace.probe.inputs.startswith("sha256:") for _, trace in heard]
    if any(hashed) and not all(hashed):
        raise CaptureError(
            _ASKED,
            "only some ranks were given token ids: these are pipeline stages with equal names",
            GIVE_A_MESH,
        )
    if all(hashed):
        return list({trace.probe.inputs: one for one, trace in reversed(heard)}.values())[::-1]
    if len({one.layout.parameters for one, _ in heard}) > 1:
        raise CaptureError(
            _ASKED,
            "sites have the same names on all ranks and their models different parameters: these "
            "may be pipeline stages",
            GIVE_A_MESH,
        )
    return parts


def _replica(parts: list[Part]) -> Trace | None:
    """All stages of one replica as one trace; None when none of them heard anything."""
    parts = sorted(parts, key=lambda one: one.layout.stage)
    silent = [one.layout.rank for one in parts if one.trace is None]
    if len(silent) == len(parts):
        return None
    if silent:
        raise CaptureError(
            _ASKED,
            f"rank {silent[0]} heard no forward pass although other stages did",
            "Every stage must run in training mode in a recorded step.",
        )
    return _stacked({one.layout.stage: one.trace for one in parts if one.trace is not None})


def _stacked(stages: Mapping[int, Trace]) -> Trace:
    """One replica: sites of later stages behind those of earlier ones, chain by chain."""
    traces = list(stages.values())
    if len(traces) == 1:
        return traces[0]
    held = {stage: [site.name for site in trace.sites] for stage, trace in stages.items()}
    names = stacked_names(held)
    runs: list[list[tuple[Chain, Chain]]] = []  # parts as their stage and as the job calls them
    for stage, trace in stages.items():
        for chain, rows in trace.ranges():
            named = zip(chain.sites, names[stage][rows], strict=True)
            sites = tuple(replace(site, name=name) for site, name in named)
            part = (chain, replace(chain, sites=sites))
            run = next((run for run in reversed(runs) if _goes_on(run[-1][0], chain)), None)
            if run is None:
                runs.append([part])
            else:
                run.append(part)
    chains = [_joined([new for _, new in run], axis=0) for run in runs]
    ordinary = [run for run in runs if not run[0][0].auxiliary]
    if len(ordinary) > 1:
        chains = [_called(chain, run[0][0]) for chain, run in zip(chains, runs, strict=True)]
    probes = [trace.probe for trace in traces]
    saw_ids = [probe for probe in probes if probe.inputs.startswith("sha256:")]
    return replace(
        traces[0],
        probe=(saw_ids or probes)[0],
        chains=_numbered(chains),
        coverage=_covered(traces, names=list(names.values()), held=list(held.values())),
        orientation=_oriented([trace.orientation for trace in traces]),
    )


def _goes_on(before: Chain, chain: Chain) -> bool:
    """Whether a stage's chain is the continuation of an earlier stage's.

    The place in the module tree tells: a stage that holds a part of one chain calls it ``main``,
    whichever it is.
    """
    return (
        before.auxiliary == chain.auxiliary
        and before.n_streams == chain.n_streams
        and stem_of(before.sites[-1].name) == stem_of(chain.sites[0].name)
    )


def _called(chain: Chain, first: Chain) -> Chain:
    """After its place, where there are several chains."""
    if chain.auxiliary or chain.name != "main":
        return chain
    name = stem_of(first.sites[0].name) or "main"
    sites = tuple(replace(site, chain=name) for site in chain.sites)
    return replace(chain, name=name, sites=sites)


def _beside(replicas: list[Trace]) -> Trace:
    """The whole job: tokens of all replicas, replica after replica."""
    first = replicas[0]
    if len(replicas) == 1:
        return first
    names = [[[site.name for site in chain.sites] for chain in one.chains] for one in replicas]
    if any(one != names[0] for one in names):
        raise CaptureError(
            _ASKED,
            "data-parallel replicas measured different sites",
            "Check that the same layers run on every replica, or pass the job's DeviceMesh.",
        )
    chains = tuple(
        _joined(list(parts), axis=1)
        for parts in zip(*(one.chains for one in replicas), strict=True)
    )
    skipped = {gap.site: gap for one in replicas for gap in one.coverage.skipped}
    inputs = sorted({one.probe.inputs for one in replicas})
    return replace(
        first,
        chains=chains,
        coverage=replace(
            first.coverage,
            measured=first.coverage.expected - len(skipped),
            skipped=tuple(skipped.values()),
        ),
        probe=replace(first.probe, tokens=chains[0].n_tokens, inputs="; ".join(inputs)),
        orientation=_oriented([one.orientation for one in replicas]),
    )


def _joined(parts: list[Chain], *, axis: int) -> Chain:
    """Chains along sites (axis 0) or tokens (axis 1): names, matrices, what was measured."""
    shapes = {part.M.shape[:axis] + part.M.shape[axis + 1 :] for part in parts}
    if len(shapes) > 1:
        raise CaptureError(
            _ASKED,
            f"chain {parts[0].name!r} has {' and '.join(str(list(part.M.shape)) for part in parts)}"
            " sites, tokens, n, n on different ranks",
            "Every stage must see the same microbatches, and the same attention mask if any.",
        )
    M = np.concatenate([part.M for part in parts], axis=axis)
    first = parts[0]
    if axis == 0:
        sites = tuple(site for part in parts for site in part.sites)
        measured = tuple(one for part in parts for one in part.measured)
    else:
        sites = first.sites
        measured = tuple(all(ones) for ones in zip(*(part.measured for part in parts), strict=True))
        M[~np.asarray(measured)] = np.nan
    return replace(first, sites=sites, measured=measured, M=M)


def _at_most(trace: Trace, tokens: int) -> Trace:
    """Ranks that turned out not to be copies bring more tokens than were asked for, once."""
    main = trace.chains[0]
    if main.n_tokens <= tokens:
        return trace
    draw = np.random.default_rng(trace.probe.seed or 0)
    rows = np.sort(draw.choice(main.n_tokens, tokens, replace=False))
    chains = (replace(main, M=main.M[:, rows]), *trace.chains[1:])
    return replace(trace, chains=chains, probe=replace(trace.probe, tokens=tokens))


def _numbered(chains: list[Chain]) -> tuple[Chain, ...]:
    """Sites numbered over all chains, main chains before auxiliary ones; no name twice."""
    ordered: list[Chain] = []
    start = 0
    taken: dict[str, int] = {}
    for one in sorted(chains, key=lambda one: one.auxiliary):
        taken[one.name] = taken.get(one.name, 0) + 1
        number = taken[one.name]
        chain = one if number == 1 else replace(one, name=f"{one.name}.{number}")
        sites: tuple[Site, ...] = tuple(
            replace(site, index=start + k, chain=chain.name) for k, site in enumerate(chain.sites)
        )
        ordered.append(replace(chain, sites=sites))
        start += len(sites)
    return tuple(ordered)


def _covered(
    parts: list[Trace], *, names: list[tuple[str, ...]], held: list[list[str]]
) -> Coverage:
    """Stages together; gaps under the names that their sites have in the whole depth."""
    skipped: list[Skipped] = []
    for part, new, old in zip(parts, names, held, strict=True):
        named = dict(zip(old, new, strict=True))
        skipped += [
            replace(gap, site=named.get(gap.site, gap.site)) for gap in part.coverage.skipped
        ]
    return Coverage(
        expected=sum(part.coverage.expected for part in parts),
        measured=sum(part.coverage.measured for part in parts),
        skipped=tuple(skipped),
        unclaimed=tuple(one for part in parts for one in part.coverage.unclaimed),
    )


def _oriented(parts: list[Orientation]) -> Orientation:
    """The weakest proof of them all."""
    errors = [one.error for one in parts if one.error is not None]
    transposed = [one.error_transposed for one in parts if one.error_transposed is not None]
    numeric = all(one.verified == "numeric" for one in parts)
    return Orientation(
        stored=parts[0].stored,
        verified="numeric" if numeric else "declared",
        error=max(errors, default=None),
        error_transposed=max(transposed, default=None),
    )
