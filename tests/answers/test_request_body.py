"""A request's body is decoded only as far as it is changed."""

import json

from pipeline.answers.request_body import decode_body, decode_messages
from pipeline.text import compact_json

BODY = b'{"model": "m", "seed": 1e2, "messages": [{"role":"user",  "content": "\\u00e9"}]}'


def test_parts_that_are_not_changed_keep_their_bytes() -> None:
    parts = decode_body(BODY)
    messages = decode_messages(parts["messages"])
    sent = compact_json({**parts, "messages": [*messages, {"role": "assistant", "content": "So"}]})
    assert b'"seed":1e2' in sent
    assert b'{"role":"user",  "content": "\\u00e9"}' in sent
    assert json.loads(sent)["messages"][1] == {"role": "assistant", "content": "So"}
