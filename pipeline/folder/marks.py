"""The mark by which a user knows the lines of history that are their own: an HMAC with a secret that only they have.

A job folder may be handed over: unpacked from an archive, copied from another machine, made by a colleague. What its
history says of its writer proves nothing, and an unpacked file belongs to whoever unpacked it. So each line ends in a
mark, made with a secret in the user's own state folder (`$XDG_STATE_HOME`, by default `~/.local/state`).

A mark proves that this user wrote the line, on this machine or on another with the same home. It does not prove where
or when: one's own line, put into another folder, is still one's own. It says nothing of the answers in the store, nor
of the files that a line names. Without a place for the secret, no line can be known, and all are taken for another's.
"""

import contextlib
import hashlib
import hmac
import os
import stat
from pathlib import Path

from ..files import PRIVATE, new_draft, read_private, sync

SECRET_BYTES = 32
FIELD = b',"mark":"'
"""What stands before the mark, which is the last field of a line."""
MARK_CHARACTERS = hashlib.sha256().digest_size * 2


def with_mark(line: bytes) -> bytes:
    """The line, a JSON object, with this user's mark as its last field; as it is if no secret can be kept."""
    secret = _secret() or _make_secret()
    return line if secret is None else line[:-1] + FIELD + _mark(secret, line) + b'"}'


def is_own(line: bytes) -> bool:
    """Whether the line, without its line end, has this user's mark."""
    secret = _secret()
    body, field, mark = line[:-2].rpartition(FIELD)
    if secret is None or not field or len(mark) != MARK_CHARACTERS or not line.endswith(b'"}'):
        return False
    return hmac.compare_digest(mark, _mark(secret, body + b"}"))


def can_mark() -> bool:
    """Whether this user's own lines can be known: there is a secret, or one can be kept."""
    return (_secret() or _make_secret()) is not None


def _mark(secret: bytes, line: bytes) -> bytes:
    return hmac.new(secret, line, hashlib.sha256).hexdigest().encode()


def _secret_path() -> Path | None:
    state = os.environ.get("XDG_STATE_HOME", "")
    if state and Path(state).is_absolute():  # the standard has relative ones ignored
        return Path(state) / "pipeline" / "secret"
    with contextlib.suppress(RuntimeError):  # an account without a home
        path = Path.home() / ".local" / "state" / "pipeline" / "secret"
        return path if path.is_absolute() else None  # else anybody's folder could bring its own secret
    return None


def _secret() -> bytes | None:
    """The secret; None if there is none that is this user's alone."""
    path = _secret_path()
    with contextlib.suppress(OSError, ValueError):
        if path is None:
            return None
        found = path.lstat()
        if found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            secret = bytes.fromhex(read_private(path, 1_000).decode("ascii"))
            return secret if len(secret) == SECRET_BYTES else None
    return None


def _make_secret() -> bytes | None:
    """Make the secret, on disk when this returns; None if it cannot be kept. Of two makers at once, one makes it."""
    path = _secret_path()
    if path is None or os.path.lexists(path):  # one that others could read, or that is no secret, is left as it is
        return _secret()  # another process may have made it a moment ago
    with contextlib.suppress(OSError):
        around = next(folder for folder in path.parents if folder.exists())
        if around.stat().st_uid != os.geteuid():  # as with sudo: files in another user's home would lock them out
            return None
        path.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        with new_draft(path, private=True) as draft:
            draft.write_text(os.urandom(SECRET_BYTES).hex(), encoding="ascii")
            sync(draft)
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                draft.replace(path)
        sync(path.parent)
    return _secret()
