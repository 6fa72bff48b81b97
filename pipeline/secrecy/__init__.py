"""What a secret is, decided once: by its look, and by where it stands; and how it is hidden in texts that are kept."""

from .command import hidden_in_command
from .look import HIDDEN, SECRET_CHARACTERS_MIN, is_secret
from .sources import SECRET_NAME, login_secrets, secrets_of_header
from .texts import hidden_in_name, hidden_in_program, hidden_in_setting, hidden_in_text

__all__ = [
    "HIDDEN",
    "SECRET_CHARACTERS_MIN",
    "SECRET_NAME",
    "hidden_in_command",
    "hidden_in_name",
    "hidden_in_program",
    "hidden_in_setting",
    "hidden_in_text",
    "is_secret",
    "login_secrets",
    "secrets_of_header",
]
