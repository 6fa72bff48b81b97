"""The endpoint that all other tests stand on does what they take it to do."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from chat_server import Canned, ChatServer, Seen, answer_to, chat_process, completion, pick


def asking(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "some-model", "messages": [{"role": "user", "content": prompt}], **more}


def ask(url: str, prompt: str = "Hello?", **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/chat/completions", json=asking(prompt, **more), timeout=20, trust_env=False)


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    answer = response.json()["choices"][0]["message"]["content"]
    assert isinstance(answer, str)
    return answer


def raw(prompt: str) -> bytes:
    body = msgspec.json.encode(asking(prompt))
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_the_answer_is_a_function_of_the_prompt_alone(server: ChatServer) -> None:
    first, again, other = ask(server.url, "one"), ask(server.url, "one", temperature=1), ask(server.url, "two")
    assert text(first) == text(again) == answer_to("one")
    assert text(other) == answer_to("two") != answer_to("one")
    assert first.content == again.content


def test_an_answer_has_the_model_and_the_counts_of_its_request(server: ChatServer) -> None:
    parts = [{"type": "text", "text": "4567"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = [{"role": "system", "content": "0123"}, {"role": "user", "content": parts}]
    response = httpx.post(f"{server.url}/chat/completions", json={"model": "m", "messages": messages}, trust_env=False)
    assert text(response) == answer_to("4567")
    assert response.json()["model"] == "m"
    assert response.json()["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def test_a_schema_is_answered_by_json_that_fits_it(server: ChatServer) -> None:
    labels = ["positive", "negative", "neutral"]
    properties = {
        "label": {"enum": labels},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "why": {"type": ["string", "null"]},
        "sure": {"type": "boolean"},
        "words": {"type": "array", "items": {"type": "string"}},
    }
    schema = {"type": "object", "properties": properties}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answers = {prompt: text(ask(server.url, prompt, response_format=form)) for prompt in map(str, range(20))}
    assert answers == {prompt: answer_to(prompt, schema) for prompt in answers}
    values = {prompt: msgspec.json.decode(answer) for prompt, answer in answers.items()}
    assert all(value["label"] == pick(prompt, labels) for prompt, value in values.items())
    assert {value["label"] for value in values.values()} == set(labels)
    assert all(1 <= value["stars"] <= 5 for value in values.values())


def test_the_log_holds_each_request_as_it_arrived(server: ChatServer) -> None:
    began = time.monotonic()
    ask(server.url, "näïve\n", seed=7)
    httpx.get(f"{server.url}/models?all=1", headers={"X-Two": "Words"}, trust_env=False)
    first, second = server.log
    assert (first.path, first.prompt, first.body) == ("/v1/chat/completions", "näïve\n", asking("näïve\n", seed=7))
    assert (second.path, second.prompt, second.body) == ("/v1/models?all=1", "", {})
    assert second.headers["x-two"] == "Words"
    assert began <= first.at <= second.at <= time.monotonic()


def test_a_reply_function_sees_the_attempt_and_may_answer_otherwise() -> None:
    def reply(seen: Seen, attempt: int) -> Canned | None:
        return Canned(429, b"{}", {"retry-after": "2"}) if seen.prompt == "busy" and attempt < 3 else None

    with ChatServer(reply) as server:
        assert [ask(server.url, "busy").status_code for _ in range(3)] == [429, 429, 200]
        assert ask(server.url, "free").status_code == 200
    with ChatServer(lambda _seen, _attempt: Canned(529, headers={"retry-after": "2"})) as server:
        assert ask(server.url).headers["retry-after"] == "2"
    with ChatServer(lambda _seen, _attempt: Canned(body=completion(None, refusal="No.", usage=None))) as server:
        answer = ask(server.url).json()
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": "No."}
        assert "usage" not in answer


def test_an_error_in_a_reply_function_is_raised_where_the_server_ends() -> None:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        raise KeyError(seen.prompt)

    with pytest.raises(KeyError, match="lost"), ChatServer(reply) as server:
        assert ask(server.url, "lost").status_code == 400


@pytest.mark.parametrize(
    ("canned", "error"),
    [
        (Canned(body=b"0123456789", cut_after=4), httpx.RemoteProtocolError),
        (Canned(body=b"0123456789", cut_after=0), httpx.RemoteProtocolError),
        (Canned(close=True), httpx.RemoteProtocolError),
        (Canned(garbage=True), httpx.RemoteProtocolError),
        (Canned(hang=True), httpx.ReadTimeout),
    ],
    ids=["cut", "cut at once", "close", "garbage", "hang"],
)
def test_each_fault_breaks_the_attempt_in_its_own_way(canned: Canned, error: type[Exception]) -> None:
    with ChatServer(lambda _seen, _attempt: canned) as server, httpx.Client(trust_env=False, timeout=0.5) as client:
        with pytest.raises(error):
            client.post(f"{server.url}/chat/completions", json=asking("Hello?"))
        assert len(server.log) == 1


def test_a_drip_goes_on_and_says_nothing() -> None:
    def drip(_seen: Seen, _attempt: int) -> Canned:
        return Canned(drip_seconds=0.01)

    with ChatServer(drip) as server, httpx.Client(trust_env=False) as client:
        with client.stream("POST", f"{server.url}/chat/completions", json=asking("Hello?")) as response:
            pieces: Iterator[bytes] = response.iter_raw(chunk_size=1)
            assert [next(pieces) for _ in range(5)] == [b" "] * 5
        assert response.status_code == 200


def test_one_connection_carries_many_requests_of_both_framings(server: ChatServer) -> None:
    body = msgspec.json.encode(asking("in pieces"))
    with httpx.Client(trust_env=False) as client:
        for content in (body, iter([body[:9], body[9:]]), body):
            response = client.post(f"{server.url}/chat/completions", content=content)
            assert text(response) == answer_to("in pieces")
    assert len({seen.headers.get("transfer-encoding") for seen in server.log}) == 2


def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return Canned(body=b"slow", delay_seconds=0.05) if seen.prompt == "slow" else Canned(body=b"fast")

    with ChatServer(reply) as server, socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(raw("slow") + raw("fast").replace(b"Host", b"Connection: close\r\nHost"))
        with client.makefile("rb") as stream:
            received = stream.read()
    assert received.index(b"slow") < received.index(b"fast")


def test_requests_in_flight_are_counted_until_they_end() -> None:
    with ChatServer(lambda seen, _attempt: Canned(hang=True) if seen.prompt == "hang" else None) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(8)]
        for client in clients:
            client.sendall(raw("hang"))
        server.wait_for(8)
        assert (server.in_flight, server.most_in_flight) == (8, 8)
        ask(server.url)
        assert (server.in_flight, server.most_in_flight) == (8, 9)
        for client in clients:
            client.close()
    assert (server.in_flight, server.most_in_flight) == (0, 9)


def test_waiting_for_a_request_that_does_not_come_says_so(server: ChatServer) -> None:
    ask(server.url)
    server.wait_for(1)
    with pytest.raises(TimeoutError, match="1 of 2 requests arrived"):
        server.wait_for(2, timeout_seconds=0.01)


def test_the_delay_is_waited_before_the_answer() -> None:
    with ChatServer(delay_seconds=0.05) as server:
        ask(server.url)
        assert time.monotonic() - server.log[0].at >= 0.05


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-wrong"}], ids=["no key", "wrong key"])
def test_a_request_without_the_key_is_turned_away(headers: dict[str, str]) -> None:
    with ChatServer(key="sk-right") as server:
        url, right = f"{server.url}/chat/completions", {"authorization": "Bearer sk-right"}
        refused = httpx.post(url, json=asking("Hello?"), headers=headers, trust_env=False)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert httpx.post(url, json=asking("Hello?"), headers=right, trust_env=False).status_code == 200


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"messages": "Hello?"}', b'{"messages": ["\xff"]}'])
def test_a_body_that_asks_nothing_is_a_400(server: ChatServer, content: bytes) -> None:
    response = httpx.post(f"{server.url}/chat/completions", content=content, trust_env=False)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


def test_another_path_or_method_is_a_404(server: ChatServer) -> None:
    for response in (
        httpx.get(f"{server.url}/chat/completions", trust_env=False),
        httpx.post(f"{server.url}/completions", json={}, trust_env=False),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")


def test_what_is_not_http_is_a_400_and_the_end_of_the_connection(server: ChatServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"\x16\x03\x01 is how TLS begins\r\n\r\n")
        with client.makefile("rb") as stream:
            assert stream.read().startswith(b"HTTP/1.1 400 ")
    assert server.log == []


def test_an_ended_server_refuses_and_another_may_take_its_port() -> None:
    with ChatServer() as server, pytest.raises(OSError, match="in use"), ChatServer(port=server.port):
        pass
    with pytest.raises(httpx.ConnectError):
        ask(server.url)
    with ChatServer(port=server.port) as another:
        assert another.url == server.url
        assert text(ask(another.url)) == answer_to("Hello?")


def test_a_process_serves_the_same_answers_and_logs_each_request(tmp_path: Path) -> None:
    with chat_process(tmp_path / "log", delay_seconds=0.01) as server:
        answers = [text(ask(server.url, prompt)) for prompt in ("a\nb", "c", "c")]
        lines = server.log_lines()
    assert answers == [answer_to(prompt) for prompt in ("a\nb", "c", "c")]
    assert [(line["prompt"], line["attempt"]) for line in lines] == [("a\nb", 1), ("c", 1), ("c", 2)]
    assert server.process.returncode == 0


@pytest.mark.parametrize(
    "end",
    [lambda process: process.stdin.close(), lambda process: process.send_signal(signal.SIGTERM)],
    ids=["stdin closed", "SIGTERM"],
)
def test_a_process_ends_when_it_is_told_to(end: Callable[[Any], None]) -> None:
    with chat_process() as server:
        end(server.process)
        assert server.process.wait(timeout=20) == 0


def test_a_process_ends_by_itself_when_its_time_is_up() -> None:
    with chat_process(for_seconds=0.1) as server:
        assert server.process.wait(timeout=20) == 0


def test_a_killed_process_keeps_its_log_and_its_port_can_be_taken_again(tmp_path: Path) -> None:
    with chat_process(tmp_path / "log") as server:
        ask(server.url)
        server.process.kill()
        server.process.wait(timeout=20)
        assert [line["prompt"] for line in server.log_lines()] == ["Hello?"]
    with chat_process(tmp_path / "log", port=httpx.URL(server.url).port or 0) as again:
        assert again.url == server.url
        ask(again.url)
        assert len(again.log_lines()) == 2
