"""Who else could ask: loops that only ask, and other programs. A prompt a line in, an answer a line out.

    python tests/benchmarks/askers.py                                             what this interpreter can run
    python tests/benchmarks/askers.py NAME URL CONCURRENCY PROMPTS ROWS ANSWERS   ask the first lines of PROMPTS

A loop that only asks keeps nothing and checks nothing: it is the least that could do the work. The other programs are
called as their own pages tell, with their limits out of the way, and without their checkpoints and bars.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from questions import MODEL

# each asker imports what it is made of, and nothing else does
# ruff: noqa: PLC0415

KEY = "none"
NO_LIMIT = 1_000_000_000
SECONDS_MAX = 600


def messages_of(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def body_of(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": messages_of(prompt)}


def text_of(document: Any) -> str:
    text: str = document["choices"][0]["message"]["content"]
    return text


# ---- the least that could ask


async def with_aiohttp(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    import aiohttp

    answers, unasked = [""] * len(prompts), iter(enumerate(prompts))

    async def slot(session: aiohttp.ClientSession) -> None:
        for number, prompt in unasked:
            async with session.post(f"{url}/chat/completions", json=body_of(prompt)) as response:
                answers[number] = text_of(await response.json())

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(SECONDS_MAX)) as session:
        await asyncio.gather(*(slot(session) for _ in range(concurrency)))
    return answers


async def with_httpx(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    """One client a slot: a pool shared by many scans all its connections for every request."""
    import httpx

    answers, unasked = [""] * len(prompts), iter(enumerate(prompts))
    tls, one = httpx.create_ssl_context(), httpx.Limits(max_connections=1)

    async def slot() -> None:
        async with httpx.AsyncClient(verify=tls, limits=one, timeout=SECONDS_MAX) as client:
            for number, prompt in unasked:
                response = await client.post(f"{url}/chat/completions", json=body_of(prompt))
                answers[number] = text_of(response.json())

    await asyncio.gather(*(slot() for _ in range(concurrency)))
    return answers


# ---- other programs


async def with_lm_deluge(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    from lm_deluge import LLMClient
    from lm_deluge.models import register_model

    os.environ["NO_KEY"] = KEY
    register_model(MODEL, MODEL, url, "NO_KEY")
    client = LLMClient(
        MODEL,
        max_requests_per_minute=NO_LIMIT,
        max_tokens_per_minute=NO_LIMIT,
        max_concurrent_requests=concurrency,
        request_timeout=SECONDS_MAX,
    )
    replies = await client.process_prompts_async(prompts, show_progress=False)
    return [reply.completion for reply in replies]


async def with_flexllm(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    from flexllm import LLMClient

    client = LLMClient(
        base_url=url, api_key=KEY, model=MODEL, concurrency_limit=concurrency, max_qps=0, timeout=SECONDS_MAX
    )
    replies = await client.chat_batch([messages_of(prompt) for prompt in prompts], show_progress=False)
    return [reply.content for reply in replies]


async def with_async_batch_llm(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    from async_batch_llm import llm, process_prompts

    strategy = llm(f"openai-compatible:{MODEL}", base_url=url, api_key=KEY, max_connections=concurrency)
    batch = await process_prompts(strategy, prompts, concurrency=concurrency, preserve_order=True)
    return [result.output for result in batch.results]


async def with_langchain(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=url, api_key=KEY, timeout=SECONDS_MAX)
    replies = await model.abatch(prompts, {"max_concurrency": concurrency})
    return [reply.content for reply in replies]


async def with_litellm(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # or it fetches a price list, and waits for it
    import litellm

    answers, unasked = [""] * len(prompts), iter(enumerate(prompts))

    async def slot() -> None:
        for number, prompt in unasked:
            reply = await litellm.acompletion(
                f"openai/{MODEL}", messages_of(prompt), base_url=url, api_key=KEY, timeout=SECONDS_MAX
            )
            answers[number] = text_of(reply)

    await asyncio.gather(*(slot() for _ in range(concurrency)))
    return answers


ASKERS: dict[str, Callable[[str, Sequence[str], int], Coroutine[Any, Any, list[str]]]] = {
    "aiohttp": with_aiohttp,
    "httpx": with_httpx,
    "lm-deluge": with_lm_deluge,
    "flexllm": with_flexllm,
    "async-batch-llm": with_async_batch_llm,
    "langchain-openai": with_langchain,
    "litellm": with_litellm,
}
"""By the package to install."""
BARE = {"aiohttp", "httpx"}
SLOW = {"async-batch-llm", "langchain-openai", "litellm"}
"""They take 5 to 20 ms of CPU for a row."""


def installed() -> Iterator[tuple[str, str]]:
    """Name and version."""
    for name in ASKERS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def main() -> None:
    if len(sys.argv) == 1:
        print(json.dumps(dict(installed())))
        return
    name, url, concurrency, prompts, rows, answers = sys.argv[1:]
    with Path(prompts).open(encoding="utf-8") as file:
        asked = [line.rstrip("\n") for line in islice(file, int(rows))]
    found = asyncio.run(ASKERS[name](url, asked, int(concurrency)))
    Path(answers).write_text("".join(f"{answer}\n" for answer in found), "utf-8")


if __name__ == "__main__":
    main()
