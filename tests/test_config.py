"""A configuration survives YAML, names every mistake, and is named by its hash."""

import dataclasses
import types
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest

from rpjax.data import load
from rpjax.errors import InputError
from rpjax.experiments import (
    ExperimentConfig,
    checks,
    from_yaml,
    presets,
    read_config,
    to_yaml,
)
from rpjax.experiments.config import METHODS
from rpjax.experiments.values import SPEED_ALONE, as_dict, config_hash, differences

DEFAULT = ExperimentConfig()


def leaves(kind=ExperimentConfig, prefix=""):
    """Dotted names and annotations of all fields that are no groups."""
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


FIELDS = dict(leaves())


def get(config, dotted):
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


def put(config, dotted, value):
    """The configuration with one field changed."""
    group, _, name = dotted.rpartition(".")
    if not group:
        return dataclasses.replace(config, **{name: value})
    part = dataclasses.replace(getattr(config, group), **{name: value})
    return dataclasses.replace(config, **{group: part})


def another(hint, value):
    """A value of this type that is not `value`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(a for a in args if a is not type(None))
        return another(inner, value)
    if origin is Literal:
        return next(a for a in args if a != value)
    if origin is tuple:
        return tuple(reversed(value)) or (another(args[0], None),)
    if hint is bool:
        return not value
    if hint in (int, float):
        return hint(value or 0) + (3 if hint is int else 3.25e-7)
    return f"{value} ü: #" if hint is str else Path("some where/else")


def changed(dotted, config=DEFAULT):
    return put(config, dotted, another(FIELDS[dotted], get(config, dotted)))


@pytest.fixture(params=FIELDS)
def field(request):
    return request.param


# ------------------------------------------------------------------------------- YAML


def test_every_field_survives_yaml(field):
    config = changed(field)
    assert config != DEFAULT
    assert from_yaml(to_yaml(config)) == config


def test_all_fields_together_survive_yaml_and_a_file(tmp_path):
    config = DEFAULT
    for name in FIELDS:
        config = changed(name, config)
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert read_config(file) == config
    assert differences(as_dict(config), as_dict(DEFAULT)) == sorted(FIELDS)


def test_what_a_file_leaves_out_keeps_its_default():
    assert from_yaml("") == from_yaml("{}") == from_yaml("# nothing") == DEFAULT
    some = from_yaml("training: {epochs: 3}\nseed: 7\n")
    assert some == put(put(DEFAULT, "training.epochs", 3.0), "seed", 7)


def test_what_a_file_leaves_out_is_as_in_the_base_that_is_given():
    base = put(put(DEFAULT, "training.noise_seed", "secret"), "train_on", "all")
    some = from_yaml("training: {epochs: 3}", base)
    assert some == put(base, "training.epochs", 3.0)


def test_numbers_that_yaml_reads_as_text_are_still_numbers():
    config = from_yaml("dp: {delta: 1e-6, clip_norm: 2}")
    assert (config.dp.delta, config.dp.clip_norm) == (1e-6, 2.0)
    assert isinstance(config.dp.clip_norm, float)


MISTAKES = {
    "config is [1]": "- 1",
    "config is []": "[]",
    "config is 'plain'": "plain",
    "config is 0": "0",
    "config.trainin is not a field": "trainin: {}",
    "config.training.epoch is not a field": "training: {epoch: 3}",
    "config.7 is not a field": "{7: 1, seed: 2}",
    "config.training is None": "training:",
    "config.data is 'digits'": "data: digits",
    "config.seed is 1.5": "seed: 1.5",
    "config.seed is True": "seed: true",
    "config.seed is '1'": "seed: '1'",
    "config.seed is None": "seed: null",
    "config.training.epochs is 'many'": "training: {epochs: many}",
    "config.training.epochs is True": "training: {epochs: true}",
    "config.training.epochs is [3]": "training: {epochs: [3]}",
    "config.training.flip is 1": "training: {flip: 1}",
    "config.data.name is 3": "data: {name: 3}",
    "config.data.dir is 3": "data: {dir: 3}",
    "config.data.dir is ['a']": "data: {dir: [a]}",
    "config.model.norm is 'layer'": "model: {norm: layer}",
    "config.model.norm is None": "model: {norm: null}",
    "config.attack.protocol is ['halves']": "attack: {protocol: [halves]}",
    "config.methods is 'plain'": "methods: plain",
    "config.methods[1] is 'dp'": "methods: [plain, dp]",
}


@pytest.mark.parametrize(("message", "text"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_named_by_its_dotted_field_in_one_line(message, text):
    with pytest.raises(InputError) as error:
        from_yaml(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert ";" in str(error.value), "a message ends with what is allowed"


def test_a_wrong_choice_is_answered_with_the_choices():
    with pytest.raises(InputError, match="one of group, batch"):
        from_yaml("model: {norm: layer}")


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t- x", "a: !!python/name:os"])
def test_text_that_is_not_yaml_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="not YAML") as error:
        from_yaml(text)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="no such file"):
        read_config(tmp_path)
    (tmp_path / "image.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"image\.yaml; it is not a text file"):
        read_config(tmp_path / "image.yaml")


# ------------------------------------------------------------------ hash, differences


def test_the_hash_names_the_configuration():
    assert config_hash(DEFAULT) == config_hash(from_yaml(to_yaml(DEFAULT)))
    head, _, digits = config_hash(DEFAULT).partition(":")
    assert head == "sha256"
    assert len(digits) == 64


def test_the_hash_changes_with_every_field_that_can_change_a_result():
    telling = [name for name in FIELDS if name not in SPEED_ALONE]
    hashes = {config_hash(changed(name)) for name in telling}
    assert len(hashes | {config_hash(DEFAULT)}) == len(telling) + 1
    for name in FIELDS.keys() & set(SPEED_ALONE):
        assert config_hash(changed(name)) == config_hash(DEFAULT)


def test_differences_name_the_field_that_changed(field):
    assert differences(as_dict(changed(field)), as_dict(DEFAULT)) == [field]
    assert differences(as_dict(changed(field)), as_dict(changed(field))) == []


# ---------------------------------------------------------------------------- presets

PRESETS = {
    "digits": presets.DIGITS,
    "mnist": presets.MNIST,
    "natural": presets.NATURAL,
    "common": presets.COMMON,
}


def named(values):
    """A preset's values by dotted name."""
    return {f"{g}.{n}": v for g, part in values.items() for n, v in part.items()}


@pytest.fixture(params=PRESETS)
def preset(request):
    return PRESETS[request.param]


def test_a_preset_fills_every_open_field_it_has_and_no_other(preset):
    filled = presets.fill(DEFAULT, preset)
    assert differences(as_dict(filled), as_dict(DEFAULT)) == sorted(named(preset))
    for name, value in named(preset).items():
        assert get(filled, name) == value
        assert get(DEFAULT, name) is None, "a preset cannot replace a default"


def test_a_preset_leaves_fields_that_were_given_even_if_false_or_zero(preset):
    config = DEFAULT
    for name in named(preset):
        own = False if name == "training.flip" else 0
        config = put(config, name, own)
    assert presets.fill(config, preset) == config


def test_the_first_preset_that_has_a_field_wins():
    config = presets.fill(DEFAULT, presets.NATURAL, presets.COMMON)
    assert (config.training.crop, config.training.flip) == (4, True)
    config = presets.fill(DEFAULT, presets.DIGITS, presets.COMMON)
    assert (config.training.crop, config.training.flip) == (0, False)


def test_a_resized_crop_takes_the_place_of_the_presets_crop():
    config = put(DEFAULT, "training.resized_crop", 0.08)
    assert presets.fill(config, presets.NATURAL, presets.COMMON).training.crop == 0
    both = put(config, "training.crop", 3)
    assert presets.fill(both, presets.NATURAL).training.crop == 3, "to be refused"


def test_nothing_that_training_needs_is_left_open():
    """Fields that stay None mean something: no width, epochs and not steps, all."""
    config = presets.resolved(DEFAULT, load("digits"))
    left = {name for name in FIELDS if get(config, name) is None}
    assert left == {
        *("data.dir", "data.train_records", "data.image_size", "model.width"),
        "model.channels",
        *("noise.input_bound", "dp.noise_multiplier", "dp.microbatch"),
        *("dp.clipping_bound", "dp.count_noise_multiplier"),
        *("model.residual_bound", "noise.label_epsilon"),
        *("dp.steps", "dp.momentum", "dp.average", "dp.stop_at_epsilon"),
        *("training.devices", "training.resized_crop", "transfer.start"),
        *("imbalance.largest", "imbalance.seed"),
    }


def test_a_number_of_updates_takes_the_place_of_the_presets_epochs():
    config = presets.resolved(put(DEFAULT, "dp.steps", 7), load("digits"))
    assert (config.dp.steps, config.dp.epochs) == (7, None)


def test_a_preset_goes_by_the_name_of_the_data_or_by_their_channels():
    digits = load("digits")
    assert presets.preset(digits) is presets.DIGITS
    grey = dataclasses.replace(digits, name="letters")
    assert presets.preset(grey) is presets.MNIST
    colour = [
        dataclasses.replace(part, images=part.images.repeat(3, -1))
        for part in (digits.train, digits.test)
    ]
    photos = dataclasses.replace(grey, train=colour[0], test=colour[1])
    assert presets.preset(photos) is presets.NATURAL


def test_small_is_at_most_ten_thousand_records_and_a_count_beats_it(monkeypatch):
    digits = load("digits")
    assert presets.sized(DEFAULT, digits) is digits
    monkeypatch.setattr(presets, "SMALL", 100)
    assert len(presets.sized(DEFAULT, digits).train) == 100
    assert presets.sized(put(DEFAULT, "data.size", "full"), digits) is digits
    some = presets.sized(put(DEFAULT, "data.train_records", 200), digits)
    assert len(some.train) == 200
    assert len(some.test) == len(digits.test)


@pytest.mark.parametrize("count", [0, 9, 1438])
def test_a_count_of_records_that_cannot_be_had_is_refused(count):
    with pytest.raises(InputError, match=f"train_records is {count}"):
        presets.sized(put(DEFAULT, "data.train_records", count), load("digits"))


# ----------------------------------------------------------------------------- ranges

OUTSIDE = {
    "seed": [-1, 2**31],
    "methods": [(), ("plain", "plain")],
    "model.width": [0],
    "model.groups": [0],
    "training.momentum": [-0.1, 1.1, float("nan")],
    "training.weight_decay": [-0.1, float("nan"), float("inf")],
    "training.warmup": [-0.1, float("nan"), float("inf")],
    "dp.warmup": [-0.1, float("inf")],
    "training.epochs": [float("inf")],
    "training.learning_rate": [float("inf")],
    "dp.epochs": [float("inf")],
    "dp.learning_rate": [float("nan")],
    "attack.draws": [0],
}
CASES = [(name, value) for name, values in OUTSIDE.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_what_would_fail_after_training_began_is_refused_before(name, value):
    checks.check(DEFAULT)
    with pytest.raises(InputError, match=f"^{name} is ") as error:
        checks.check(put(DEFAULT, name, value))
    assert "\n" not in str(error.value)


def test_ranges_include_their_ends():
    for name, value in [("seed", 0), ("seed", 2**31 - 1), ("training.momentum", 0.0)]:
        checks.check(put(DEFAULT, name, value))


def test_a_crop_that_can_leave_nothing_of_the_image_is_refused():
    shape = load("digits").shape
    checks.check_crop(put(DEFAULT, "training.crop", 7), shape)
    with pytest.raises(InputError, match=r"training\.crop is 8; it must be below 8"):
        checks.check_crop(put(DEFAULT, "training.crop", 8), shape)


def test_methods_are_all_there_are():
    assert DEFAULT.methods == METHODS
    assert len(set(METHODS)) == 5
