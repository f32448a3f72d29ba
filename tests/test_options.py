"""Settings: their defaults are legal, nonsense is refused at once, names choose groups."""

from __future__ import annotations

import dataclasses

import pytest

from onnxprune.allocation import ALLOCATIONS
from onnxprune.criteria import CRITERIA, Settings
from onnxprune.options import Options


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "l3"}, r"unknown criterion 'l3'; known: .*obs"),
        ({"allocation": "fair"}, r"unknown allocation 'fair'; known: .*sensitivity"),
        ({"provider": "gpu"}, r"unknown provider 'gpu'; known: cpu, cuda, tensorrt"),
        ({"align": "8"}, r"align is 'auto' or a number of channels, not '8'"),
        ({"align": 0}, r"at least 1, not 0"),
        ({"batch": -1}, r"at least 1, not -1"),
        ({"num_samples": 0}, r"at least 1, not 0"),
        ({"seed": -1}, r"seed must not be negative, but is -1"),
        ({"include": "conv("}, r"'conv\(' is not a regular expression"),
        ({"exclude": "*"}, r"'\*' is not a regular expression"),
    ],
)
def test_nonsense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Options(**settings)


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_criteria_go_by_name_or_as_they_are(name):
    made = Options(criterion=name, seed=3).make_criterion()
    assert made == CRITERIA[name](Settings(seed=3))
    assert Options(criterion=made).make_criterion() is made


def test_every_allocation_is_known():
    assert [Options(allocation=name).allocation for name in ALLOCATIONS] == list(ALLOCATIONS)


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().batch = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        (None, None, {"stem", "block.1", "block.2", "head"}),
        ("block", None, {"block.1", "block.2"}),
        (None, "head", {"stem", "block.1", "block.2"}),
        ("block", "2$", {"block.1"}),
        ("^b|stem", r"\.1", {"stem", "block.2"}),
        ("Block", None, set()),
    ],
)
def test_include_and_exclude_search_the_names(include, exclude, chosen):
    options = Options(include=include, exclude=exclude)
    names = ("stem", "block.1", "block.2", "head")
    assert {name for name in names if options.selects((name,))} == chosen


def test_any_maker_of_a_group_can_be_named():
    stream = ("stem", "stem", "block.2", "block.4")
    assert Options(include="block.4").selects(stream)
    assert not Options(exclude="block.4").selects(stream)
    assert not Options(include="stem", exclude="block.4").selects(stream)
