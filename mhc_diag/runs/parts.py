"""Where a rank of a parallel job stands, and what it says of one recorded step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mhc_diag.trace import Trace

GIVE_A_MESH = "Pass the job's DeviceMesh with named dimensions: md.Monitor(..., mesh=mesh)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a rank stands in the job."""

    rank: int = 0
    world: int = 1
    replica: int = 0
    """Which part of the tokens it sees."""
    n_replicas: int = 1
    stage: int = 0
    """Which part of the depth it holds."""
    copy: int = 0
    """Position among the ranks that hold the same sites and are thought to see the same tokens."""
    n_copies: int = 1
    declared: bool = False
    """Whether a mesh said so; otherwise it is told by the names of the sites."""
    holds: bool = True
    """Whether its part of the model has sites."""
    parameters: str = ""
    """Digest of some of its parameters, where no mesh says whether ranks are replicas."""

    @property
    def writes(self) -> bool:
        """Whether this rank computes and writes."""
        return self.rank == 0

    def share(self, tokens: int) -> int:
        """Tokens that this rank draws, so that all replicas together draw ``tokens``."""
        even, rest = divmod(tokens, self.n_replicas)
        return even + (self.replica < rest)

    def settled(self, *, as_replicas: bool) -> Layout:
        """The layout once it is known whether the supposed copies see the same tokens.

        Under sequence parallelism the ranks of a tensor-parallel group do not: each of them sees a
        part of every sequence.
        """
        if not as_replicas:
            return self
        return replace(
            self,
            replica=self.replica * self.n_copies + self.copy,
            n_replicas=self.n_replicas * self.n_copies,
            copy=0,
            n_copies=1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one rank says of one recorded step."""

    layout: Layout
    trace: Trace | None = None
    """None when it has no sites, is a copy, or heard nothing."""
    tokens_seen: str = ""
    """Digest of what depends on the tokens, on the first recorded step of a possible copy."""
    scalars: Mapping[str, float] = field(default_factory=dict)
