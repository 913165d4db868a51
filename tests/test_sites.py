"""Sites of a file: chains apart, copies out, holes named, order of execution."""

from __future__ import annotations

from typing import Any

import pytest

from mhc_diag.adapters.recognise import recognise
from mhc_diag.errors import NoHyperConnectionsError

Shapes = dict[str, tuple[int, ...]]


def hub(prefix: str = "", layers: Any = range(3), n: int = 4) -> Shapes:
    rows = (2 + n) * n
    return {
        f"{prefix}layers.{i}.hc_{half}_{role}": shape
        for i in layers
        for half in ("attn", "ffn")
        for role, shape in {"fn": (rows, n * 8), "base": (rows,), "scale": (3,)}.items()
    }


def lucid(prefix: str, n: int = 4, C: int = 8) -> Shapes:
    return {
        f"{prefix}.static_alpha": (n, n + 1),
        f"{prefix}.dynamic_alpha_fn": (C, n + 1),
        f"{prefix}.dynamic_alpha_scale": (),
        f"{prefix}.static_beta": (n,),
        f"{prefix}.dynamic_beta_fn": (C,),
        f"{prefix}.dynamic_beta_scale": (),
        f"{prefix}.norm.gamma": (C,),
    }


def found(tensors: Shapes, **options: Any) -> Any:
    config = options.pop("config", {})
    return recognise(tensors, config, adapter=options.pop("adapter", "deepseek_v4"), **options)


def chains(recognition: Any) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for site in recognition.sites:
        names.setdefault(site.chain, []).append(site.name)
    return names


def test_one_stack_is_the_main_chain_in_numeric_order() -> None:
    names = chains(found(hub("model.", range(11))))
    assert list(names) == ["main"]
    assert names["main"][-2:] == ["model.layers.10.hc_attn", "model.layers.10.hc_ffn"]


def test_encoder_and_decoder_are_two_chains_the_encoder_first() -> None:
    names = chains(found(hub("decoder.") | hub("encoder.")))
    assert list(names) == ["encoder", "decoder"]
    assert all(len(sites) == 6 for sites in names.values())


@pytest.mark.parametrize("copy", ["ema.", "teacher.", "model_ema."])
def test_a_copy_of_the_weights_is_left_out_and_named(copy: str) -> None:
    recognition = found(hub("model.") | hub(copy))
    assert list(chains(recognition)) == ["main"]
    assert len(recognition.sites) == 6
    assert recognition.skipped == ()
    assert all(name.startswith(copy) for name in recognition.unclaimed)
    assert len(recognition.unclaimed) == 18


def test_a_copy_alone_is_the_model() -> None:
    assert len(found(hub("ema.")).sites) == 6


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": 5}])
def test_a_block_that_is_not_in_the_file_at_all_is_missing_in_its_place(
    config: dict[str, int],
) -> None:
    recognition = found(hub(layers=[0, 1, 3, 4]), config=config)
    assert [one.site for one in recognition.skipped] == ["layers.2.hc_attn", "layers.2.hc_ffn"]
    assert [site.layer for site in recognition.sites] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_half_a_block_that_is_not_in_the_file_is_missing_too() -> None:
    tensors = {name: shape for name, shape in hub().items() if "layers.1.hc_ffn" not in name}
    assert [one.site for one in found(tensors).skipped] == ["layers.1.hc_ffn"]


def test_the_last_blocks_are_missed_where_the_configuration_counts_them() -> None:
    recognition = found(hub(layers=range(3)), config={"num_hidden_layers": 4})
    assert [one.site for one in recognition.skipped] == ["layers.3.hc_attn", "layers.3.hc_ffn"]
    assert found(hub(layers=range(3))).skipped == ()


def test_a_hybrid_whose_blocks_mostly_have_no_such_site_has_no_holes() -> None:
    assert found(hub(layers=[0, 4, 8])).skipped == ()


def test_user_given_names_run_in_numeric_order() -> None:
    tensors: Shapes = {}
    for i in range(11):
        tensors |= lucid(f"layers.{i}.1") | lucid(f"layers.{i}.0")
    names = chains(recognise(tensors, {}))["main"]
    assert names[:3] == ["layers.0.0", "layers.0.1", "layers.1.0"]
    assert names[-1] == "layers.10.1"


def test_two_lists_of_blocks_with_names_of_their_own_are_two_chains() -> None:
    tensors = lucid("down.0") | lucid("down.1") | lucid("up.0") | lucid("up.1")
    assert list(chains(recognise(tensors, {}))) == ["down", "up"]


def test_parameters_that_exist_and_are_not_used_are_not_read() -> None:
    tensors = lucid("transformer.h.0.hc_attn") | {"transformer.h.0.hc_attn.H_res_logits": (4, 4)}
    with pytest.raises(NoHyperConnectionsError, match="no adapter took them"):
        recognise(tensors, {})


@pytest.mark.parametrize(
    "shapes",
    [
        {"a.norm.gamma": ()},
        {"a.static_alpha": (0, 1)},
        {"a.static_beta": ()},
        {"a.static_alpha": (4,)},
    ],
)
def test_shapes_of_no_sense_are_no_site_and_no_crash(shapes: Shapes) -> None:
    with pytest.raises(NoHyperConnectionsError):
        recognise(lucid("a") | shapes, {})
