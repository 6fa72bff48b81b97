"""A command line as it is kept: its words without secrets, and which of them are not whole any more."""

from collections.abc import Iterable, Sequence

from .texts import IN_PROMPTS, hidden_in_name, hidden_in_setting, hidden_in_text

TEXTS = ("-p", "--prompt", "--system")
"""The options of `run` whose value is a prompt."""
COMMAND = "--on-finish"
SETTING = "--set"


def hidden_in_command(words: Sequence[str], known: Iterable[str] = ()) -> tuple[list[str], list[int]]:
    """The words of a command line with `***` for each secret, and the places (from 0) of words that held one.

    `known`: the job's own secrets. Paths and addresses may look random and stay, unless a known prefix tells a key.
    """
    secrets = list(known)
    kept = [_hidden(word, words[at - 1] if at else "", secrets) for at, word in enumerate(words)]
    return kept, [at for at, (word, now) in enumerate(zip(words, kept, strict=True)) if word != now]


def _hidden(word: str, before: str, known: list[str]) -> str:
    """One word; `before` is the word before it, which may be its option."""
    option, equals, value = word.partition("=")
    if equals and option in (*TEXTS, COMMAND, SETTING):  # --system=TEXT
        return f"{option}={_hidden(value, option, known)}"
    if before == COMMAND:
        return hidden_in_text(word, known, is_command=True)
    if before in TEXTS and not word.startswith("@"):
        return str(hidden_in_setting(IN_PROMPTS[0], word, known))
    if before == SETTING:
        return _hidden_in_assignment(word, known)
    if word[:2] == "-p" and word != "-p":  # -pTEXT
        return f"-p{_hidden(word[2:], '-p', known)}"
    return hidden_in_name(word, known)


def _hidden_in_assignment(word: str, known: list[str]) -> str:
    name, equals, value = word.partition("=")
    return f"{name}{equals}{hidden_in_setting(name.strip(), value, known)}" if equals else hidden_in_name(word, known)
