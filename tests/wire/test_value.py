"""Value classes: everything that `dataclass(frozen=True, slots=True)` promises, held against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

from pptp.value import value

MAKERS: dict[str, Callable[[type], type]] = {"value": value, "dataclass": dataclass(frozen=True, slots=True)}


def variants(plain: Callable[[], type]) -> list[Any]:
    """The class once as a value and once as the standard library makes it."""
    return [make(plain()) for make in MAKERS.values()]


def point() -> type:
    class Point:
        """Somewhere."""

        x: int
        y: int = 2
        tags: list[str] = field(default_factory=list, compare=False)
        secret: bytes = field(default=b"", repr=False)

        @property
        def total(self) -> int:
            return self.x + self.y

    return Point


POINTS = pytest.mark.parametrize("cls", variants(point), ids=MAKERS)


@POINTS
def test_fields_by_position_name_and_default(cls: Any) -> None:
    one = cls(1, tags=["a"])
    assert (one.x, one.y, one.tags, one.secret, one.total) == (1, 2, ["a"], b"", 3)
    assert cls(1).tags is not cls(1).tags
    with pytest.raises(TypeError, match=r"Point\.__init__\(\) missing 1 required positional argument: 'x'"):
        cls()
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        cls(1, z=2)


@POINTS
def test_equal_by_what_is_compared(cls: Any) -> None:
    assert cls(1, tags=["a"]) == cls(1)
    assert hash(cls(1, tags=["a"])) == hash(cls(1))
    assert cls(1) != cls(1, 3)
    assert cls(1) != cls(1, secret=b"x")
    assert cls(1) != (1, 2, b"")


@POINTS
def test_shown_without_what_is_secret(cls: Any) -> None:
    assert repr(cls(1, secret=b"x")).endswith("Point(x=1, y=2, tags=[])")


@POINTS
def test_frozen_and_slotted(cls: Any) -> None:
    one = cls(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'y'"):
        del one.y
    with pytest.raises((FrozenInstanceError, TypeError)):  # the standard library's own trips over its new class
        one.other = 1
    assert not hasattr(one, "__dict__")


@POINTS
def test_a_dataclass_as_ever(cls: Any) -> None:
    assert [one.name for one in fields(cls)] == ["x", "y", "tags", "secret"]
    assert replace(cls(1), y=5) == cls(1, 5)
    assert asdict(cls(1)) == {"x": 1, "y": 2, "tags": [], "secret": b""}
    match cls(1, 5):
        case cls(x, y):
            assert (x, y) == (1, 5)


def nothing() -> type:
    class Nothing:
        """No fields."""

    return Nothing


@pytest.mark.parametrize("cls", variants(nothing), ids=MAKERS)
def test_a_value_of_nothing(cls: Any) -> None:
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    assert cls()
    assert repr(cls()).endswith("Nothing()")


def test_values_of_two_classes_are_never_equal() -> None:
    classes: list[type] = [value(nothing()), value(nothing())]
    assert classes[0]() != classes[1]()


def careful() -> type:
    class Careful:
        """Says no to what is negative, and shows nothing of itself."""

        number: int

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("negative")

        def __repr__(self) -> str:
            return "…"

        def __eq__(self, other: object) -> bool:
            return self is other

        def __hash__(self) -> int:
            return 7

    return Careful


@pytest.mark.parametrize("cls", variants(careful), ids=MAKERS)
def test_what_a_class_defines_itself_stays(cls: Any) -> None:
    one = cls(1)
    assert (repr(one), one == cls(1), hash(one)) == ("…", False, 7)
    with pytest.raises(ValueError, match="negative"):
        cls(-1)


@value
class Base:
    """With a default, which what is derived follows."""

    name: str = "base"


@value
class Derived(Base):
    """One field more."""

    number: int = 1


def test_a_value_from_a_value() -> None:
    assert (Derived("x", 2).name, Derived().number) == ("x", 1)
    assert Derived() != Base()
    assert repr(Derived()) == "Derived(name='base', number=1)"
    assert isinstance(replace(Derived(), number=3), Base)
