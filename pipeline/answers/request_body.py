"""Decode a request's JSON body only as far as it is changed; all other parts keep their bytes."""

import msgspec

decode_body = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Decode a body into its parts, each of them still JSON text."""

decode_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode
"""Decode the part `messages` into a list of messages, each of them still JSON text."""
