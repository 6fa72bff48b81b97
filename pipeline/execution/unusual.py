"""What is unusual about an endpoint's answers, told once for each word: where their text stood, or why they ended."""

from ..records import FINISH_REASONS, Answer
from ..text import one_line

KNOWN_REASONS = (None, *FINISH_REASONS)
"""The finish reasons that need no word to the user."""

TOLD_MAX = 20
"""The most words that are told: an endpoint might send a new one each time."""

WORD_CHARACTERS = 100


class UnusualAnswers:
    """The unusual answers of one run. Each unusual word is told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def lines_for(self, answer: Answer) -> list[str]:
        """The lines for the screen about an answer; none if nothing about it is unusual, or all of that is told."""
        if not answer.taken_from and answer.finish_reason in KNOWN_REASONS:
            return []
        texts: dict[str, str] = {}
        if answer.taken_from:
            texts[answer.taken_from] = (
                f"The endpoint sends answers in the field {answer.taken_from}, with no content beside it. They are "
                "taken from there.\nIf they are thoughts without an answer, check how the server separates the two."
            )
        if answer.finish_reason not in KNOWN_REASONS:
            word = one_line(answer.finish_reason or "")[:WORD_CHARACTERS]
            texts[word] = (
                f"The endpoint gives a finish reason that is unknown here: {word}. Such answers are taken as complete."
            )
        new = [word for word in texts if word not in self._told][: TOLD_MAX - len(self._told)]
        self._told.update(new)
        return [texts[word] for word in new]
