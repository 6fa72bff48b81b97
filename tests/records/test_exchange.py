"""What goes to the endpoint and comes back is frozen and compared by value."""

import msgspec
import pytest

from pipeline.records import Rejection, Request, Tally, Usage


@pytest.mark.parametrize("noun", [Usage(1), Tally(), Request("k", b"{}"), Rejection("retry", "rate", "busy")])
def test_the_nouns_are_frozen_and_equal_by_value(noun: msgspec.Struct) -> None:
    assert noun == msgspec.structs.replace(noun)
    with pytest.raises(AttributeError):
        setattr(noun, noun.__struct_fields__[0], None)
