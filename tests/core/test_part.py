"""What a part is, beside a struct: itself, and silent."""

from __future__ import annotations

import msgspec

from mux.core.part import Part


class Keeper(Part):
    """One with a secret."""

    secret: str
    others: list[Keeper] = msgspec.field(default_factory=list)


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
