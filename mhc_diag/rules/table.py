"""RULES: every rule with its id, as ``mhc-diag rules`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mhc_diag.rules.bounds import GAIN_PATTERN
from mhc_diag.rules.case import Rule
from mhc_diag.rules.gains import CANCELLATION_LIMIT
from mhc_diag.rules.validity import MANIFOLD_TOLERANCE

_ALL = (
    Rule(
        id="MHC101",
        title="a gain is above its limit",
        severity="error",
        looks_at=f"every limited id; without other limits {GAIN_PATTERN} above 2.0",
        advice="Project H_res (Sinkhorn, as mHC does) and look first at the site that is named.",
    ),
    Rule(
        id="MHC102",
        title="H_res is not doubly stochastic although its family is projected",
        severity="warning",
        looks_at=f"manifold.row_error.max, manifold.column_error.max above {MANIFOLD_TOLERANCE:g}",
        advice="More Sinkhorn iterations; the same sinkhorn_iters, tau and eps as in training.",
    ),
    Rule(
        id="MHC103",
        title="a matrix or a reading is not finite",
        severity="error",
        looks_at="single.forward.norm.max, then every id",
        advice="Go back to the last checkpoint whose matrices are finite.",
    ),
    Rule(
        id="MHC104",
        title="a site was expected and not measured",
        severity="error",
        looks_at="coverage, and the gaps of limited ids",
        advice="Make the missing sites run, choose the right adapter, or --allow-partial.",
    ),
    Rule(
        id="MHC105",
        title="a setting is assumed",
        severity="warning",
        looks_at="settings that no file, configuration, option or module gives",
        advice="Give it with --set NAME=VALUE or in a config.json next to the file.",
    ),
    Rule(
        id="MHC106",
        title="digits are lost to cancellation",
        severity="warning",
        looks_at=f"composite.*.cancellation.max above {CANCELLATION_LIMIT:g}",
        advice="Read the norm readings there, and the window ids.",
    ),
    Rule(
        id="MHC107",
        title="a gain is beyond the range of a double",
        severity="error",
        looks_at="composite and window ids of finite matrices; states the log10",
        advice="Project H_res: such a product is no signal path.",
    ),
    Rule(
        id="MHC108",
        title="the reference point is not the data",
        severity="info",
        looks_at="probe static or isotropic, where H_res depends on data and is not projected",
        advice="Measure on data: --probe tokens with --model and --inputs.",
    ),
    Rule(
        id="MHC109",
        title="a gain is held down by cancellation or averaging",
        severity="warning",
        looks_at="in gate: composite.*.norm.mean, composite.*.amax.max against --max-gain",
        advice="Put a limit on the named id itself, or gate with --strict.",
    ),
    Rule(
        id="MHC110",
        title="the orientation is in doubt",
        severity="error",
        looks_at="the closure x' = M x + H_post^T f with M and with its transpose",
        advice="--set orientation=M or M^T, or the tap's stored=, streams= and H_post=.",
    ),
    Rule(
        id="MHC111",
        title="H_res does not mix",
        severity="info",
        looks_at="mixing.distance_identity.mean, and the number of streams",
        advice="Expected of an untrained or plain residual model; else check what was read.",
    ),
    Rule(
        id="MHC112",
        title="names look like hyper-connections and no adapter took them",
        severity="warning",
        looks_at="names of parameters and modules",
        advice="See 'mhc-diag inspect', choose an --adapter, or tap the module.",
    ),
    Rule(
        id="MHC113",
        title="a product vanishes",
        severity="warning",
        looks_at="composite and window ids that are 0 or below the range of a double; its log10",
        advice="Check what was read; a lower limit (--min composite.*.amin.mean=X) breaks on it.",
    ),
)
RULES: Mapping[str, Rule] = MappingProxyType({rule.id: rule for rule in _ALL})
"""Rule id -> rule."""
