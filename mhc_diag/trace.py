"""The record that everything else reads: what was measured, where, on what.

Letters: L sites in execution order, T tokens, n streams.

M is the matrix **as applied** (row = destination stream, column = source stream); only adapters
transpose, so nothing that reads a trace ever asks about orientation again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from mhc_diag.errors import ShapeError

Array = Any
"""A numpy array, or a torch tensor that lives on an accelerator."""

Family = Literal["hc", "mhc", "mhc-lite", "kromhc", "identity", "custom"]
ProbeKind = Literal["static", "isotropic", "tokens"]
Sublayer = Literal["attn", "mlp", "other"]

DEFINITIONS: Final = 1
"""Version of the metric definitions (mhc_diag.metrics) in which numbers are taken; those of
different versions are not comparable."""

PROJECTED_FAMILIES = frozenset({"mhc", "mhc-lite", "kromhc", "identity"})
"""Families whose H_res is held on (or near) the doubly stochastic matrices by construction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One application of a mixing, x' = M x + H_post^T F(H_pre x)."""

    index: int
    """Position in execution order over all chains, from 0; chain after chain."""
    chain: str
    """Name of the chain it belongs to."""
    name: str
    """Module path or parameter prefix; ``name#k`` for the k-th firing within one forward pass."""
    layer: int | None = None
    """Number of the block, where the name tells it."""
    sublayer: Sublayer = "other"
    """Which half of the block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value that the weights do not say, and where it was found."""

    value: Any
    source: Literal["config", "option", "module", "file", "assumed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The dtype H_res is computed in, and the dtype of the copy that mixes the streams."""

    computed: str = "float32"
    applied: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the numbers come from."""

    path: str
    format: str
    """torch-zip, safetensors, sharded-safetensors, hf-folder, npz, trace, run, model, ..."""
    bytes_read: int = 0
    """Bytes of the file that were read to get them; 0 for a running model."""
    step: int | None = None
    """Training step, where the file says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What was recognised."""

    adapter: str
    family: Family
    width: int | None = None
    """Features per stream, C."""
    precision: Precision = field(default_factory=Precision)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    input_dependent: bool = True
    """Whether H_res changes with the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """How the implementation stores M, and the proof (closure: x' = M x + H_post^T f).

    ``error`` is the largest relative residual of the closure with M, ``error_transposed`` the same
    with M^T, over the sites where the model's own x and x' were seen; None where they were not.
    """

    stored: Literal["M", "M^T"]
    verified: Literal["numeric", "declared"] = "declared"
    error: float | None = None
    error_transposed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the matrices were measured on (contract section 3)."""

    kind: ProbeKind
    tokens: int
    """Number of tokens behind each number of the main chain; 1 for static."""
    seed: int | None = None
    inputs: str = ""
    """sha256 of the token ids, or a description where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """An expected site that was not measured."""

    site: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Expected against measured sites; nothing is dropped without a word."""

    expected: int
    measured: int
    skipped: tuple[Skipped, ...] = ()
    unclaimed: tuple[str, ...] = ()
    """Parameter or module names that look like hyper-connections and that no adapter took."""

    @property
    def is_complete(self) -> bool:
        """Whether there was something to measure and all of it was measured."""
        return 0 < self.expected == self.measured


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """The sites between the place where streams are made and where they are merged.

    All sites of a chain share n and the same T tokens; matrices of different chains are never
    multiplied. Rows of an unmeasured site hold NaN and ``measured`` is False there.
    """

    name: str
    sites: tuple[Site, ...]
    M: Array
    """[L, T, n, n], as applied: row = destination, column = source."""
    measured: tuple[bool, ...]
    """One entry per site."""
    auxiliary: bool = False
    """MTP heads and the like: reported, kept out of summary, verdict and gate."""
    H_pre: Array | None = None
    """[L, T, n]: read weights, streams -> branch input."""
    H_post: Array | None = None
    """[L, T, n]: write weights, branch output -> streams."""
    gram: Array | None = None
    """[L, T, n+1, n+1]: inner products of (x_0 .. x_{n-1}, f): streams in, branch output."""
    logits: Array | None = None
    """[L, T, n, n]: H_res before its projection, oriented as M."""

    def __post_init__(self) -> None:
        shape = tuple(self.M.shape)
        if len(shape) != 4 or shape[2] != shape[3] or shape[0] != len(self.sites):
            raise ShapeError(
                f"chain {self.name!r} with {len(self.sites)} sites",
                f"M has shape {list(shape)}",
                "M must be [sites, tokens, n, n], one square matrix per site and token.",
            )
        if len(self.measured) != len(self.sites):
            raise ShapeError(
                f"chain {self.name!r} with {len(self.sites)} sites",
                f"'measured' has {len(self.measured)} entries",
                "Give one True or False per site.",
            )
        L, T, n, _ = shape
        wanted = {
            "H_pre": (L, T, n),
            "H_post": (L, T, n),
            "gram": (L, T, n + 1, n + 1),
            "logits": (L, T, n, n),
        }
        for label, want in wanted.items():
            array = getattr(self, label)
            if array is not None and tuple(array.shape) != want:
                raise ShapeError(
                    f"chain {self.name!r} with M {list(shape)}",
                    f"{label} has shape {list(array.shape)}",
                    f"{label} must be {list(want)}.",
                )

    @property
    def n_sites(self) -> int:
        """L."""
        return int(self.M.shape[0])

    @property
    def n_tokens(self) -> int:
        """T."""
        return int(self.M.shape[1])

    @property
    def n_streams(self) -> int:
        """n."""
        return int(self.M.shape[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What must agree before two numbers of one metric id may be compared as one."""

    probe: str
    seed: int | None
    inputs: str
    tokens: int
    computed: str
    applied: str
    definitions: int = DEFINITIONS
    """Version of the metric definitions: of this version, unless they were recorded before."""

    def differences(self, other: Identity) -> tuple[str, ...]:
        """Sentences that name each part that differs; empty when the two are comparable."""
        return tuple(
            f"{name}: {getattr(self, name)} against {getattr(other, name)}"
            for name in self.__dataclass_fields__
            if getattr(self, name) != getattr(other, name)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Captured matrices of one model on one set of inputs, with provenance."""

    source: Source
    model: Model
    orientation: Orientation
    probe: Probe
    coverage: Coverage
    chains: tuple[Chain, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites, chain after chain; ``sites[i].index == i``."""
        return tuple(site for chain in self.chains for site in chain.sites)

    @property
    def identity(self) -> Identity:
        """What must agree with another trace before numbers are compared as one."""
        return Identity(
            probe=self.probe.kind,
            seed=self.probe.seed,
            inputs=self.probe.inputs,
            tokens=self.probe.tokens,
            computed=self.model.precision.computed,
            applied=self.model.precision.applied,
        )

    def ranges(self) -> Iterator[tuple[Chain, slice]]:
        """Each chain with the slice of site numbers that it owns."""
        start = 0
        for chain in self.chains:
            yield chain, slice(start, start + chain.n_sites)
            start += chain.n_sites

    def save(self, path: str, *, force: bool = False) -> None:
        """Write ``*.trace.safetensors``; see :func:`mhc_diag.tracefile.save_trace`."""
        from mhc_diag.tracefile import save_trace

        save_trace(self, path, force=force)
