"""HTTP to the endpoint: one attempt out, one reply in, and whether the reply is an answer or a rejection."""

from .batch_api import BatchApi
from .body_room import RoomShare
from .client import Client
from .error_bodies import clean_message
from .lenient_json import parse_json
from .local_model import find_gguf, gguf_sha256, serve
from .rate_limits import read_allowance
from .rejections import rejects_response_format
from .replies import read_reply

__all__ = [
    "BatchApi",
    "Client",
    "RoomShare",
    "clean_message",
    "find_gguf",
    "gguf_sha256",
    "parse_json",
    "read_allowance",
    "read_reply",
    "rejects_response_format",
    "serve",
]
