"""What a part is, beside a struct: itself, and silent."""

from __future__ import annotations

import msgspec

from mux.core.part import Part, later


class Keeper(Part):
    """One with a secret."""

    secret: str
    others: list[Keeper] = msgspec.field(default_factory=list)


class Owner(Part):
    """One that makes a part of its own."""

    name: str
    keeper: Keeper = later()
    count: int = 0

    def __post_init__(self) -> None:
        self.keeper = Keeper(self.name)


def test_what_comes_later_is_each_parts_own() -> None:
    one, other = Owner("one", count=1), Owner("other")
    assert (one.keeper.secret, one.count) == ("one", 1)
    assert one.keeper is not other.keeper


def test_a_part_is_equal_to_itself_alone() -> None:
    keeper, other = Keeper("key"), Keeper("key")
    assert keeper == keeper  # noqa: PLR0124 (that is the question)
    assert keeper != other
    assert len({keeper, other}) == 2


def test_a_part_is_shown_without_its_fields() -> None:
    keeper = Keeper("key")
    keeper.others.append(keeper)
    assert "key" not in repr(keeper)
    assert "Keeper" in repr(keeper)
