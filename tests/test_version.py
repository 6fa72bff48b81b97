"""Which versions are newer than this one."""

import pytest

from pipeline.version import __version__, is_newer


@pytest.mark.parametrize("version", ["9", "0.2", "0.1.1", "0.1.0.1", "0.10.0", "1.0rc1"])
def test_a_version_with_a_higher_number_is_newer(version: str) -> None:
    assert is_newer(version)


@pytest.mark.parametrize("version", [__version__, "0.1", "0.0.9", "0.1.0rc2", "", "next", None, 7, "9" * 5000])
def test_what_has_none_or_no_number_is_not(version: object) -> None:
    assert is_newer(version) is (version == "9" * 5000)
