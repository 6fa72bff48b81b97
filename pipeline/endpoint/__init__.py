"""HTTP to the endpoint: one attempt out, one reply in, and what the reply means."""

from .client import BatchApi, Client
from .local_model import find_gguf, gguf_sha256, serve
from .replies import clean_message, parse_json, read_allowance, read_reply, rejects_response_format

__all__ = [
    "BatchApi",
    "Client",
    "clean_message",
    "find_gguf",
    "gguf_sha256",
    "parse_json",
    "read_allowance",
    "read_reply",
    "rejects_response_format",
    "serve",
]
