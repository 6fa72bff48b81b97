"""A reader sees every acknowledged row while another process writes, and disturbs nobody."""

import asyncio
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from children import CHILD_SECONDS, child, on_network, pipe
from stores import PUT_FOR_EVER, READ_WHAT_IS_NAMED, get_all, put_all

from pipeline.store.reader import PART_BYTES, SMALL_BYTES, Reader
from pipeline.store.writer import Store


def test_get_many_answers_in_the_order_asked_with_none_for_the_unknown(tmp_path: Path) -> None:
    put_all(tmp_path / "store", [(str(i), b"%d" % i, "ok") for i in range(1200)])
    asked = [*(str(i) for i in reversed(range(1200))), "unknown", "7", "7", "7\0"]
    expected = [*(b"%d" % i for i in reversed(range(1200))), None, b"7", b"7", None]
    assert get_all(tmp_path / "store", asked) == expected
    assert get_all(tmp_path / "store", []) == []


def test_values_are_read_as_many_at_a_time_as_have_room_together_and_at_least_those_that_belong_together(
    tmp_path: Path,
) -> None:
    third, small = bytes(PART_BYTES // 3), bytes(SMALL_BYTES)
    stored = {"small": small, "tiny": b"1", "empty": b""} | dict.fromkeys("abcd", third)
    put_all(tmp_path / "store", [*((key, value, "ok") for key, value in stored.items()), ("x", third * 4, "ok")])
    with closing(Reader(tmp_path / "store")) as reader:
        assert reader.get_first(["a", "tiny", "b", "no", "c", "d"]) == [third, b"1", third, None, third]
        assert reader.get_first(["a", "small", "a", "a", "d"]) == [third, small, third]
        assert reader.get_first([*"abcd", "tiny"], at_least=4) == [third] * 4
        assert reader.get_first(["x", "tiny"]) == [third * 4]
        assert reader.get_first(["tiny", "x", "tiny"]) == [b"1"]
        assert reader.get_first(["small"] * 5000) == [small] * (PART_BYTES // SMALL_BYTES)
        assert list(reader.values([*"abcd", "x", "no"])) == [*[third] * 4, third * 4, None]
        assert reader.stored(["a", "x", "no", "tiny", "empty"]) == {"a", "x", "tiny", "empty"}
        assert len(third) / 2 < reader.mean_bytes() < len(third)


def test_marks_may_be_read_in_part_while_more_is_stored(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    put_all(folder, [(f"a{i}", b"", "ok") for i in range(25_001)])
    with closing(Reader(folder)) as reader:
        chunks = reader.marks()
        first = next(chunks)
        put_all(folder, [("late", b"", "ok"), ("a0", b"again", "failed")])
        rest = [key for chunk in chunks for key, _ in chunk]
    assert len(first) == 25_000
    assert rest == ["a25000", "late"]


def test_a_reader_in_another_process_sees_each_row_once_it_is_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "store"

    async def write(store: Store) -> list[str]:
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READ_WHAT_IS_NAMED, str(folder), "500", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

        async def put(lane: int) -> None:
            for number in range(150):
                await store.put(f"{lane}-{number}", f"{lane}-{number}".encode() * 500, "ok")
                acknowledged.append(f"{lane}-{number}")

        acknowledged: list[str] = []
        said = []
        assert reader.stdin is not None
        assert reader.stdout is not None
        puts = asyncio.gather(*(put(lane) for lane in range(32)))
        while not puts.done():
            reader.stdin.write(json.dumps(acknowledged[-300:]).encode() + b"\n")
            said.append((await reader.stdout.readline()).decode().strip())
        await puts
        reader.stdin.close()
        assert await reader.wait() == 0
        return said

    with closing(Store(folder)) as store:
        said = asyncio.run(asyncio.wait_for(write(store), CHILD_SECONDS))
    assert set(said) == {"True"}


def test_on_a_network_readers_that_never_rest_neither_miss_a_row_nor_stop_the_writer(tmp_path: Path) -> None:
    folder, network = tmp_path / "store", on_network(tmp_path, tmp_path / "mounts")
    with child(PUT_FOR_EVER, folder, 0, where=network) as writer:
        output, acknowledged, looks = pipe(writer.stdout), [], 0
        acknowledged.append(output.readline().strip())
        with child(READ_WHAT_IS_NAMED, folder, 100) as first, child(READ_WHAT_IS_NAMED, folder, 100) as second:
            while len(acknowledged) < 2000:
                acknowledged += [output.readline().strip() for _ in range(40)]
                for reader in (first, second):
                    pipe(reader.stdin).write(json.dumps(acknowledged[-300:]) + "\n")
                    pipe(reader.stdin).flush()
                for reader in (first, second):
                    assert pipe(reader.stdout).readline() == "True\n"
                    looks += 1
            assert writer.poll() is None
    assert looks >= 100
