"""One record of all ranks: what each of them draws, and how their parts become one line.

A job of one process is the same with nobody to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mhc_diag.errors import CaptureError, MhcDiagError, OutputError, RunError
from mhc_diag.runs.distributed import agree, digest_of_tokens, gather, layout_of, settle
from mhc_diag.runs.merging import copies_differ, merge_scalars, merge_traces
from mhc_diag.runs.parts import Layout, Part
from mhc_diag.runs.recorder import Recorder, number
from mhc_diag.trace import Trace

Trouble = Callable[[str, str], None]
"""Is told (message, kind) of what was lost."""


class JointRecorder:
    """Records the traces of all ranks as one, on rank 0.

    Args:
        recorder: writes; only rank 0's is used.
        mesh: a DeviceMesh with named dimensions, or None.
        tokens: behind one record over the whole job.
        trouble: is told of what was lost.

    Raises:
        OptionError: a mesh that does not fit.
    """

    def __init__(self, recorder: Recorder, *, mesh: Any, tokens: int, trouble: Trouble) -> None:
        self.layout: Layout = layout_of(mesh)
        self.opened = False
        """Whether the first record is written; what it proved need not be proved again."""
        self._recorder, self._tokens, self._trouble = recorder, tokens, trouble

    @property
    def is_needless(self) -> bool:
        """Whether this rank is known to see only what another one sees."""
        return self.opened and self.layout.copy > 0

    def settle(self, model: Any, names: Sequence[str], errors: tuple[MhcDiagError, ...]) -> None:
        """Tell the other ranks which sites are here; what one rank refuses ends all of them.

        Raises:
            NoHyperConnectionsError: no rank has sites.
            OptionError: what the ranks hold does not fit together, or not to the mesh.
            RunError: the folder holds another model's run.
        """
        self.layout, whole = settle(self.layout, model, names, errors)
        refusal = None
        if self.layout.writes:
            try:
                self._recorder.expect(whole)
            except RunError as error:
                refusal = error
        agree(self.layout, None, refusal)

    def draw(self, seed: int, step: int) -> tuple[int, int]:
        """How many tokens this rank draws in a step, and with what seed: the same at all stages."""
        share = self.layout.share(self._tokens)
        if not self.opened and self.layout.n_copies > 1:
            share = max(share, 1)  # to see whether copies are copies
        return share, hash((seed, step, self.layout.replica)) & 0x7FFFFFFF

    def record(
        self, step: int, trace: Trace | None, scalars: Mapping[str, Any]
    ) -> Mapping[str, float] | None:
        """Measure what all ranks heard, and write it on one of them; every rank must call it.

        Returns:
            What the recorder returns, on the rank that writes; None elsewhere, or where no record
            could be made.

        Raises:
            RunError: on all ranks, when the folder holds another run or another writer is there.
        """
        unsure = not self.opened and self.layout.n_copies > 1
        parts = gather(
            Part(
                layout=self.layout,
                trace=trace,
                tokens_seen=digest_of_tokens(trace) if trace and unsure else "",
                scalars={name: number(value) for name, value in scalars.items()},
            )
        )
        recorded, as_replicas, refusal = None, False, None
        if parts is not None:
            as_replicas = copies_differ(parts)
            try:
                recorded = self._write(step, parts, as_replicas=as_replicas)
            except RunError as error:
                refusal = error
        if not self.opened:
            said = agree(self.layout, (self._recorder.is_open, as_replicas), refusal)
            self.opened, as_replicas = said
            if self.opened:
                self.layout = self.layout.settled(as_replicas=as_replicas)
        elif refusal is not None:
            raise refusal
        return recorded

    def _write(
        self, step: int, parts: Sequence[Part], *, as_replicas: bool
    ) -> Mapping[str, float] | None:
        """One line of the run folder; None, and a word to ``trouble``, where that cannot be."""
        placed = [
            replace(part, layout=part.layout.settled(as_replicas=as_replicas)) for part in parts
        ]
        try:
            whole = merge_traces(placed, tokens=self._tokens)
            if whole is None:
                if not self.layout.holds:  # a rank with sites has said so itself
                    self._trouble(f"step {step} was not recorded: no rank heard it", "silence")
                return None
            silent = whole.coverage.skipped
            if silent:
                names = ", ".join(one.site for one in silent[:3])
                what = f"{len(silent)} of {whole.coverage.expected} sites ({names})"
                self._trouble(f"step {step}: {what} were not measured: {silent[0].why}", what)
            return self._recorder.record(step, whole, merge_scalars(parts))
        except CaptureError as error:
            self._trouble(f"step {step} was not recorded: {error}", "gather")
        except OutputError as error:
            self._trouble(f"step {step}: {error}", "output")
        return None
