"""Words of the command line to values, without running a command."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from mhc_diag.errors import CaptureError, OptionError
from mhc_diag_cli.console import visible
from mhc_diag_cli.grouping import grouped
from mhc_diag_cli.taps import reader, taps
from mhc_diag_cli.values import bounds, check_device, labelled, pairs, settings


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("1e-6", 1e-6),
        ("true", True),
        ("M^T", "M^T"),
        ("lucidrains", "lucidrains"),
        ("[1]", "[1]"),
        ("null", "null"),
        ("NaN", "NaN"),
    ],
)
def test_a_setting_is_a_number_a_truth_or_a_text(text: str, value: Any) -> None:
    read = settings([f"key={text}"])["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["key", "=3", "key=", ""])
def test_a_pair_needs_both_sides(text: str) -> None:
    with pytest.raises(OptionError, match=r"that is not a pair\. Write --set KEY=VALUE"):
        pairs("--set", [text], form="KEY=VALUE")


def test_a_pair_given_twice_is_refused() -> None:
    with pytest.raises(OptionError, match="eps was given twice"):
        settings(["eps=1", "eps=2"])


def test_a_bound_keeps_its_pattern_and_its_number() -> None:
    assert bounds("--max", ["composite.*.amax.max=3.5", "single.forward.norm.max=1e300"]) == {
        "composite.*.amax.max": 3.5,
        "single.forward.norm.max": 1e300,
    }


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "two", "1e400"])
def test_a_bound_that_could_never_break_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="that is not a finite number"):
        bounds("--max", [f"composite.forward.amax.mean={text}"])


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "CPU", "mps", ""])
def test_a_device_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="Write cpu, cuda or cuda:N"):
        check_device(text)


@pytest.mark.parametrize("text", ["cpu", "cuda", "cuda:1"])
def test_a_device_stays_as_it_is(text: str) -> None:
    assert check_device(text) == text


def test_labels_are_split_from_their_sources(tmp_path: Any) -> None:
    odd = tmp_path / "lr=3e-4.pt"
    odd.touch()
    assert labelled(["HC=hc.pt", "mhc.pt", str(odd), f"B={odd}", "runs/lr=1/x.pt"]) == [
        ("HC", "hc.pt"),
        ("", "mhc.pt"),
        ("", str(odd)),
        ("B", str(odd)),
        ("", "runs/lr=1/x.pt"),
    ]


@pytest.mark.parametrize("text", ["HC=", "=hc.pt"])
def test_a_source_needs_a_path(text: str) -> None:
    with pytest.raises(OptionError, match="that is no source"):
        labelled([text])


def test_one_label_for_two_sources_is_refused() -> None:
    with pytest.raises(OptionError, match="the label 'a' was given twice"):
        labelled(["a=x.pt", "a=y.pt"])


SEEN = SimpleNamespace(
    module=SimpleNamespace(last="kept"), args=("x", "y"), output=("a", ["b", "c"])
)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("output", SEEN.output),
        ("output[0]", "a"),
        ("output[-1][1]", "c"),
        ("args[1]", "y"),
        ("module.last", "kept"),
    ],
)
def test_a_place_is_followed_step_by_step(place: str, value: Any) -> None:
    assert reader("--tap", place)(SEEN.module, SEEN.args, SEEN.output) == value


@pytest.mark.parametrize("place", ['output["H"]', "output['H']", "output.H"])
def test_a_place_may_name_a_key_or_an_attribute(place: str) -> None:
    output: Any = SimpleNamespace(H=1) if place == "output.H" else {"H": 1}
    assert reader("--tap", place)(None, (), output) == 1


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("output[7]", r"the module has no \[7\] there, only a tuple of 2"),
        ("output.H", r"the module has no \.H there, only a tuple of 2"),
        ("output[0].H", r"the module has no \.H there, only a value of type str"),
    ],
)
def test_a_place_that_is_not_there_says_what_is(place: str, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        reader("--tap", place)(SEEN.module, SEEN.args, SEEN.output)


def test_a_missing_key_names_the_keys() -> None:
    with pytest.raises(CaptureError, match=r"no \[\"H\"\] there, only a dict with 'alpha', 'beta'"):
        reader("--tap", 'output["H"]')(None, (), {"alpha": 1, "beta": 2})


@pytest.mark.parametrize(
    "place", ["out", "output[", "output[x]", "output[0", "output[0]x", "outputs", "output.", "3"]
)
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(OptionError, match="is no place"):
        taps([f"h.*={place}:M"])


@pytest.mark.parametrize("text", ["h.*=output[1]", "h.*=output[1]:", "h.*=output[1]:T"])
def test_a_tap_must_say_its_orientation(text: str) -> None:
    with pytest.raises(OptionError, match="does not end in ':M' or ':M\\^T'"):
        taps([text])


def test_a_tap_reads_what_it_names() -> None:
    made = taps(["blocks.*.mix=output[1]:M^T"])
    assert made is not None
    assert made["blocks.*.mix"].stored == "M^T"
    assert made["blocks.*.mix"].H_res(None, (), ("x", "H")) == "H"
    assert taps(None) is None


@given(st.text())
def test_visible_text_cannot_move_the_cursor(text: str) -> None:
    shown = visible(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert not any(0x202A <= ord(c) <= 0x202E or 0xD800 <= ord(c) < 0xE000 for c in shown)
    if text.isascii() and text.isprintable():
        assert shown == text


@dataclass(frozen=True, kw_only=True)
class Colour:
    red: Annotated[int, typer.Option(help="How red.")] = 1
    names: Annotated[list[str] | None, typer.Option("--name")] = None


def test_a_record_of_options_reaches_its_command_whole() -> None:
    seen: list[Any] = []

    def paint(what: Annotated[str, typer.Argument()], *, colour: Colour) -> None:
        """Paint something."""
        seen.append((what, colour))

    app = typer.Typer()
    app.command()(grouped(paint))
    app(["wall", "--red", "3", "--name", "a", "--name", "b"], standalone_mode=False)
    app(["door"], standalone_mode=False)
    assert seen == [("wall", Colour(red=3, names=["a", "b"])), ("door", Colour())]


def test_two_options_of_one_name_are_a_mistake_of_the_programmer() -> None:
    def paint(red: int, *, colour: Colour) -> None:
        raise AssertionError(red, colour)

    with pytest.raises(TypeError, match="takes the option 'red' twice"):
        grouped(paint)
