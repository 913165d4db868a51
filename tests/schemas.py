"""Documents against the schemas that the package publishes."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from mhc_diag.documents import schema

NAMES = ("analysis", "comparison", "gate", "inspection", "listing", "error")


def assert_valid(document: dict[str, Any], name: str) -> None:
    """Fail with the first place where ``document`` departs from the schema ``name``/1."""
    schemas = {each: schema(each) for each in NAMES}
    resources = [(one["$id"], Resource.from_contents(one)) for one in schemas.values()]
    registry: Registry[Any] = Registry().with_resources(resources)
    assert document["schema"] == f"mhc-diag/{name}/1"
    Draft202012Validator(schemas[name], registry=registry).validate(document)
