from __future__ import annotations

import copy
import json
from dataclasses import fields, replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
from factories import make_chain, make_trace, signed_matrices, trace_of
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource

from mhc_diag import documents
from mhc_diag.analysis import analysis_of
from mhc_diag.comparison import Failure, compare
from mhc_diag.limits import gate
from mhc_diag.metrics import METRICS
from mhc_diag.rules import RULES
from mhc_diag.trace import Precision, Setting, Trace

NAMES = ("analysis", "comparison", "error", "gate", "inspection", "listing")


def validator(name: str) -> Draft202012Validator:
    schemas = [documents.schema(each) for each in NAMES]
    registry: Registry[Any] = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas
    )
    return Draft202012Validator(documents.schema(name), registry=registry)


def broken_trace() -> Trace:
    M = signed_matrices((6, 3, 3, 3), spread=0.5)
    M[1], M[4, 0, 0, 0] = np.nan, np.inf
    chain = make_chain(M, measured=[True, False, True, True, True, True])
    settings = {"sinkhorn_iters": Setting(value=20, source="assumed")}
    return trace_of([chain], settings=settings, unclaimed=["a.hc_res"], step=None)


TRACES = {
    "calm": make_trace(family="mhc"),
    "static": make_trace(probe="static"),
    "auxiliary": make_trace(auxiliary_sites=2),
    "rounded": make_trace(precision=Precision(applied="bfloat16")),
    "one-stream": trace_of([make_chain(np.ones((2, 2, 1, 1)))]),
    "broken": broken_trace(),
    "nothing": trace_of([make_chain(np.ones((0, 2, 2, 2)))]),
}


def test_every_published_schema_is_valid_and_strict() -> None:
    folder = resources.files("mhc_diag") / "schemas"
    found = sorted(f.name for f in folder.iterdir() if f.name.endswith(".json"))
    assert found == [f"{name}.schema.json" for name in NAMES]
    for name in NAMES:
        schema = documents.schema(f"mhc-diag/{name}/1")
        Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False
        assert schema["properties"]["schema"] == {"const": f"mhc-diag/{name}/1"}


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_analysis_comparison_and_gate_follow_their_schema(trace: Trace) -> None:
    analysis = analysis_of(trace)
    validator("analysis").validate(json.loads(analysis.to_json()))
    failure = Failure(label="x", asked="analyze 'x'", came="empty", do="Look.")
    both = replace(compare(analysis, a=analysis), failed=(failure,))
    validator("comparison").validate(json.loads(both.to_json()))
    result = gate(analysis, minima={"composite.forward.amin.mean": 0.1})
    validator("gate").validate(json.loads(result.to_json()))


@pytest.mark.parametrize(
    "path",
    [
        ("verdict",),
        ("metrics",),
        ("source", "path"),
        ("findings", 0, "advice"),
        ("tool", "version"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_document_that_lacks_something_or_has_more_is_refused(path: tuple[Any, ...]) -> None:
    whole = analysis_of(make_trace(spread=2.0)).to_dict()
    lacking, more = copy.deepcopy(whole), copy.deepcopy(whole)
    holder: Any = lacking
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    with pytest.raises(ValidationError, match="is a required property"):
        validator("analysis").validate(lacking)
    holder = more
    for key in path[:-1]:
        holder = holder[key]
    holder["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        validator("analysis").validate(more)


def test_a_value_that_is_no_number_is_refused() -> None:
    document = analysis_of(make_trace()).to_dict()
    document["metrics"]["composite.forward.amax.mean"][0] = "Infinity"
    with pytest.raises(ValidationError, match="Infinity"):
        validator("analysis").validate(document)


def test_every_metric_id_is_one_that_the_schema_takes() -> None:
    names = validator("analysis").schema["$defs"]["metric_id"]
    for name in METRICS:
        Draft202012Validator(names).validate(name)
        Draft202012Validator(names).validate(f"applied.{name}")
    with pytest.raises(ValidationError, match="does not match"):
        Draft202012Validator(names).validate("gain")


def test_listings_of_metrics_and_rules_follow_their_schema() -> None:
    tables = {"metrics": METRICS, "rules": RULES}
    for kind, table in tables.items():
        entries = [
            {f.name: getattr(entry, f.name) for f in fields(entry)} for entry in table.values()
        ]
        document = {
            "schema": "mhc-diag/listing/1",
            "tool": documents.tool(),
            "kind": kind,
            "entries": entries,
        }
        validator("listing").validate(documents.plain(document))
        document["kind"] = "adapters"
        with pytest.raises(ValidationError):
            validator("listing").validate(documents.plain(document))


def test_an_error_document_has_an_exit_code_of_its_own() -> None:
    document = {"schema": "mhc-diag/error/1", "asked": "a", "came": "b", "do": "c", "exit": 2}
    validator("error").validate(document)
    with pytest.raises(ValidationError, match="is not one of"):
        validator("error").validate(document | {"exit": 1})


def test_plain_values_survive_and_others_become_words() -> None:
    document = {
        "a": np.float64(0.1),
        "b": np.int64(3),
        "c": (1, -np.inf),
        "d": np.arange(2),
        5: None,
    }
    assert documents.plain(document) == {
        "a": 0.1, "b": 3, "c": [1, "-inf"], "d": [0, 1], "5": None,
    }  # fmt: skip
    assert json.loads(documents.to_text(document)) == documents.plain(document)
