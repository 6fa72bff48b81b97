"""The exit codes are a promise."""

from pipeline.records import Exit


def test_the_exit_codes_are_those_that_are_promised() -> None:
    assert {code.name: code.value for code in Exit} == {
        "DONE": 0,
        "NEEDS_PERSON": 1,
        "USAGE": 2,
        "INCOMPLETE": 3,
        "AT_LIMIT": 4,
        "LOCKED": 5,
        "TRY_LATER": 75,
        "SIGHUP": 129,
        "SIGINT": 130,
        "SIGTERM": 143,
    }
