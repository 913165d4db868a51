"""Values that the weights do not say: of the right type, in range, and where they come from."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mhc_diag.adapters.registry import adapters
from mhc_diag.adapters.settings import lookup, resolve_settings
from mhc_diag.errors import OptionError
from mhc_diag.trace import Setting

ADAPTERS = adapters()


def resolved(adapter: str, *, config: dict[str, Any] | None = None, **given: Any) -> Any:
    return resolve_settings(ADAPTERS[adapter], config=config or {}, given=given)


@pytest.mark.parametrize(
    ("value", "number"), [(7, 7), ("7", 7), (7.0, 7), ("7.0", 7), ("1e2", 100), (" 7 ", 7)]
)
def test_a_whole_number_may_be_written_in_any_way(value: Any, number: int) -> None:
    setting = resolved("deepseek_v4", sinkhorn_iters=value)["sinkhorn_iters"]
    assert setting == Setting(value=number, source="option")
    assert type(setting.value) is int


@pytest.mark.parametrize(
    "value", [2.9, "2.9", "two", "", None, True, [3], math.nan, math.inf, "inf", "1e999"]
)
def test_what_is_no_whole_number_is_refused_and_never_cut(value: Any) -> None:
    with pytest.raises(OptionError, match="'sinkhorn_iters'.* is no whole number.*=20") as caught:
        resolved("deepseek_v4", sinkhorn_iters=value)
    assert len(str(caught.value)) < 200


def test_a_number_that_python_cannot_even_write_is_refused() -> None:
    with pytest.raises(OptionError, match="that number is no whole number"):
        resolved("deepseek_v4", sinkhorn_iters=10**5000)


@pytest.mark.parametrize("value", ["nan", math.nan, math.inf, "-inf", True, "small"])
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match="'eps' of adapter deepseek_v4.* is no finite number"):
        resolved("deepseek_v4", eps=value)


@pytest.mark.parametrize("name", ["eps", "rms_norm_eps"])
def test_an_epsilon_is_zero_or_more(name: str) -> None:
    assert resolved("deepseek_v4", **{name: 0})[name].value == 0.0
    with pytest.raises(OptionError, match="-1e-06 is below 0"):
        resolved("deepseek_v4", **{name: -1e-6})


@pytest.mark.parametrize(
    "adapter", [a for a in ADAPTERS if "sinkhorn_iters" in ADAPTERS[a].settings]
)
def test_iterations_are_counted_from_where_they_mean_something(adapter: str) -> None:
    least = 0 if adapter.startswith("hyper_connections") else 1
    assert resolved(adapter, sinkhorn_iters=least)["sinkhorn_iters"].value == least
    for value in (least - 1, -3):
        with pytest.raises(OptionError, match=f"{value} is below {least}. Give {least} or more"):
            resolved(adapter, sinkhorn_iters=value)


def test_every_setting_that_is_a_number_has_a_minimum_that_its_default_keeps() -> None:
    for adapter in ADAPTERS.values():
        for name, spec in adapter.settings.items():
            if type(spec.default) in {int, float}:
                assert spec.minimum is not None, f"{adapter.name}: {name}"
                assert spec.default >= spec.minimum


def test_a_configuration_is_held_to_the_same() -> None:
    nested = {"text_config": {"hc_sinkhorn_iters": 5}, "hc_eps": "1e-5"}
    found = resolved("deepseek_v4", config=nested)
    assert found["sinkhorn_iters"] == Setting(value=5, source="config")
    assert found["eps"] == Setting(value=1e-5, source="config")
    assert found["rms_norm_eps"].source == "assumed"
    with pytest.raises(OptionError, match="-3 is below 1"):
        resolved("deepseek_v4", config={"hc_sinkhorn_iters": -3})


def test_a_lookup_takes_the_first_key_that_is_there_outer_before_nested() -> None:
    config = {"b": 2, "text_config": {"a": 1, "b": 3}}
    assert lookup(config, ("a", "b")) == 1
    assert lookup(config, ("b",)) == 2
    assert lookup({"a": None, "text_config": "no mapping"}, ("a",)) is None


@pytest.mark.parametrize(("word", "value"), [("true", True), ("0", False), (False, False)])
def test_a_truth_has_its_words(word: Any, value: bool) -> None:
    assert resolved("hyper_connections", tanh=word)["tanh"].value is value
    with pytest.raises(OptionError, match="'maybe' is no truth"):
        resolved("hyper_connections", tanh="maybe")
