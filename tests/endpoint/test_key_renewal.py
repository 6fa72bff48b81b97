"""A key that expired is renewed once for all requests in flight, and what cannot be renewed is refused as before."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_server import Canned, ChatServer, Seen, problem
from expiring_keys import ExpiringKeys
from pydantic import SecretStr
from raw_server import endpoint

from pipeline.endpoint.client import Client
from pipeline.endpoint.key_renewal import KeyRenewal, is_key_refused
from pipeline.job.key_command import KeyCommand
from pipeline.records import Reply, Request, Stopped

REQUEST = Request("0" * 64, b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}')


def replies(url: str, command: list[str], groups: list[int]) -> list[Reply]:
    """The replies to requests that are sent in groups, those of a group at once."""
    asked = endpoint(url, api_key_command=command)

    async def ask() -> list[Reply]:
        async with Client(asked, asked.key()) as client:
            return [
                reply
                for count in groups
                for reply in await asyncio.gather(*(client.attempt(REQUEST) for _ in range(count)))
            ]

    return asyncio.run(ask())


def test_requests_in_flight_that_are_refused_share_one_run_of_the_command_and_are_sent_again(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path, uses=20)
    with ChatServer(keys.reply, delay_seconds=0.02) as server:
        found = replies(server.url, keys.command, [20, 16])
    assert [reply.status for reply in found] == [200] * 36
    assert (keys.runs, len(keys.refused), server.arrived) == (2, 16, 52)


def test_while_the_command_runs_nothing_is_sent(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path, uses=1, delay_seconds=0.3)

    async def ask(url: str) -> list[Reply]:
        asked = endpoint(url, api_key_command=keys.command)
        async with Client(asked, asked.key()) as client:
            first = await client.attempt(REQUEST)
            second = asyncio.create_task(client.attempt(REQUEST))
            await asyncio.to_thread(server.wait_for, 2)
            await asyncio.sleep(0.1)
            keys.uses = keys.left = 9
            return [first, *await asyncio.gather(second, client.attempt(REQUEST))]

    with ChatServer(keys.reply) as server:
        found = asyncio.run(ask(server.url))
    assert [reply.status for reply in found] == [200, 200, 200]
    assert (keys.runs, len(keys.refused), server.arrived) == (2, 1, 4)


def test_a_key_that_never_worked_is_not_renewed(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path, uses=1)
    keys.valid = 9
    with ChatServer(keys.reply) as server:
        [reply] = replies(server.url, keys.command, [1])
    assert (reply.status, keys.runs, server.arrived) == (401, 1, 1)


def test_a_new_key_that_is_refused_at_once_is_not_renewed_again(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path, uses=1)

    def reply(seen: Seen, attempt: int) -> Canned | None:
        return keys.reply(seen, attempt) if attempt == 1 else Canned(401, problem("revoked"))

    with ChatServer(reply) as server:
        found = replies(server.url, keys.command, [1, 1, 1])
    assert [each.status for each in found] == [200, 401, 401]
    assert (keys.runs, server.arrived) == (2, 4)


def test_a_command_that_gives_the_same_key_is_not_run_again_for_a_while() -> None:
    now, sent = 100.0, 0

    async def ask() -> list[int]:
        nonlocal now, sent
        command = KeyCommand(["sh", "-c", "echo the-key"])
        command.key()
        runs = 0
        renewal = KeyRenewal(command, lambda _key: pytest.fail("it is not new"), clock=lambda: now)
        run = command.run

        def counted(*arguments: float) -> object:
            nonlocal runs
            runs += 1
            return run(*arguments)

        command.run = counted  # type: ignore[assignment,method-assign] # counts the runs, and makes them

        async def attempt() -> Reply:
            nonlocal sent
            sent += 1
            return Reply(200 if sent == 1 else 401, {}, b"", 0.0)

        for seconds in (0, 0, 1, 58, 2):
            now += seconds
            await renewal.send(attempt)
        return [runs, sent]

    assert asyncio.run(ask()) == [2, 5]


def test_a_key_that_expired_before_it_was_used_is_renewed_too() -> None:
    now, used = 0.0, list[SecretStr]()

    async def ask() -> int:
        nonlocal now
        command = KeyCommand(["sh", "-c", "date +%s%N"])
        command.key()
        renewal = KeyRenewal(command, used.append, clock=lambda: now)
        statuses = iter((401, 401, 200))

        async def attempt() -> Reply:
            return Reply(next(statuses), {}, b"", 0.0)

        assert (await renewal.send(attempt)).status == 401  # a new key that is rejected is wrong
        now = 3600.0
        return (await renewal.send(attempt)).status

    assert asyncio.run(ask()) == 200
    assert len(used) == 1


def failing(say: str, renewal_of: Callable[[KeyCommand], KeyRenewal]) -> str:
    async def ask() -> None:
        command = KeyCommand(["sh", "-c", f"echo '{say}' >&2; exit 1"])
        renewal = renewal_of(command)
        statuses = iter((200, 401, 401))

        async def attempt() -> Reply:
            return Reply(next(statuses), {}, b"", 0.0)

        await renewal.send(attempt)
        await asyncio.gather(renewal.send(attempt), renewal.send(attempt))

    with pytest.raises(Stopped) as caught:
        asyncio.run(ask())
    return str(caught.value)


def test_a_command_that_goes_on_failing_stops_the_job_with_its_words() -> None:
    told = failing("Reauthentication required.", lambda command: KeyRenewal(command, lambda _: None, (0.0, 0.01)))
    assert "the key has expired" in told
    assert "Reauthentication required." in told


def test_a_command_that_fails_once_is_run_again(tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/runs; n=$(wc -l < {tmp_path}/runs); test $n != 2 && echo key-$n"
    used: list[str] = []

    async def ask() -> int:
        command = KeyCommand(["sh", "-c", script])
        command.key()
        renewal = KeyRenewal(command, lambda key: used.append(key.get_secret_value()), (0.0, 0.0))
        statuses = iter((200, 401, 200))

        async def attempt() -> Reply:
            return Reply(next(statuses), {}, b"", 0.0)

        await renewal.send(attempt)
        return (await renewal.send(attempt)).status

    assert asyncio.run(ask()) == 200
    assert used == ["key-3"]


def test_a_client_that_closes_does_not_wait_for_the_command(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path, uses=1)

    async def ask(url: str) -> None:
        script = f"{keys.command[2]}; test ! -e {tmp_path}/slow || sleep 60"
        asked = endpoint(url, api_key_command=[*keys.command[:2], script, keys.command[3]])
        async with Client(asked, asked.key()) as client:
            await client.attempt(REQUEST)
            (tmp_path / "slow").touch()
            task = asyncio.create_task(client.attempt(REQUEST))
            await asyncio.to_thread(keys.wait_for_runs, 2)
            task.cancel()
            await asyncio.wait({task})

    with ChatServer(keys.reply) as server:
        asyncio.run(asyncio.wait_for(ask(server.url), 10))


def test_every_key_of_the_run_is_hidden_in_what_the_server_says(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path, uses=1)
    said: list[str] = []

    def reply(seen: Seen, attempt: int) -> Canned | None:
        said.append(seen.headers["authorization"].removeprefix("Bearer "))
        refused = keys.reply(seen, attempt)
        return refused if len(said) < 5 else Canned(500, problem(" and ".join(dict.fromkeys(said))))

    with ChatServer(reply) as server:
        last = replies(server.url, keys.command, [1, 1, 1])[-1]
    assert len(set(said)) == 3
    assert last.status == 500
    assert b"*** and *** and ***" in last.body


@pytest.mark.parametrize(
    ("status", "message", "code", "is_refused"),
    [
        (401, "Unauthorized", None, True),
        (403, "Invalid Token", None, True),  # Databricks
        (403, "The access token has expired", None, True),
        (400, "API key expired. Please renew the API key.", "API_KEY_INVALID", True),  # Gemini
        (403, "Your project does not have access to the model", None, False),
        (400, "invalid max_tokens: the key is too long", None, False),
        (500, "token expired", None, False),
        (429, "invalid key", None, False),
    ],
)
def test_a_key_is_refused_by_a_401_or_by_words_that_it_expired(
    status: int, message: str, code: str | None, is_refused: bool
) -> None:
    assert is_key_refused(Reply(status, {}, problem(message, code=code), 0.0)) is is_refused
