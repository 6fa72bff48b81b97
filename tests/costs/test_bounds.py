from typing import Any

import pytest
from live_run import make_job

from pipeline.costs.bounds import ASSUMED_OUTPUT_TOKENS, IMAGE_TOKENS_MAX, MARGIN, PART_TOKENS_MAX, Bounds, TokenBounds
from pipeline.costs.prices import PriceList
from pipeline.records import Request, Usage

PRICED = {"prices__input": 1.0, "prices__output": 10.0, "parameters__max_tokens": 10}


def bounds(**settings: Any) -> Bounds:
    job = make_job("http://127.0.0.1:9/v1", **settings)
    return Bounds(job, PriceList(job))


def asking(body: bytes = b"x" * 100, max_tokens: int | None = 10) -> Request:
    return Request("0" * 64, body, model="m", max_tokens=max_tokens)


def test_a_text_has_at_most_as_many_tokens_as_bytes_and_an_answer_as_the_request_allows() -> None:
    assert bounds(**PRICED).tokens(asking()) == TokenBounds(100, 10)
    assert bounds(**PRICED).tokens(asking(max_tokens=7)) == TokenBounds(100, 7)
    assert bounds(limits__reserve_tokens=5).tokens(asking(max_tokens=None)) == TokenBounds(100, 5)
    assert bounds().tokens(asking(max_tokens=None)) == TokenBounds(100, ASSUMED_OUTPUT_TOKENS)


def test_an_image_counts_by_itself_and_not_by_its_bytes() -> None:
    body = b'[{"type":"image_url","image_url":{"url":"data:%b"}}]' % (b"A" * 10_000)
    assert IMAGE_TOKENS_MAX < bounds(**PRICED).tokens(asking(body)).prompt < IMAGE_TOKENS_MAX + 100


@pytest.mark.parametrize("kind", ["video_url", "input_video", "file", "input_file", "document_url", "document"])
def test_a_part_that_nothing_bounds_counts_as_the_most_that_a_model_can_read(kind: str) -> None:
    body = b'[{"type":"%b","%b":{"url":"https://example.org/x"}}]' % (kind.encode(), kind.encode())
    assert bounds(**PRICED).tokens(asking(body)).prompt == PART_TOKENS_MAX


@pytest.mark.parametrize(
    "body",
    [
        rb'[{"type":"text","text":"a \"type\":\"video_url\" part"}]',
        b'{"response_format":{"json_schema":{"schema":{"type":"object","properties":{"file":{"type":"string"}}}}}}',
        b'[{"type":"input_audio","input_audio":{"data":"AAAA","format":"mp3"}}]',
    ],
)
def test_words_in_a_text_or_a_schema_and_audio_that_is_sent_along_are_bounded_by_their_bytes(body: bytes) -> None:
    assert bounds(**PRICED).tokens(asking(body)).prompt == len(body)


def test_what_exceeds_a_bound_once_is_reserved_from_then_on_with_a_margin_and_told_once() -> None:
    known = bounds(**PRICED)
    assert known.learn(asking(), Usage(100, 10)) == ""
    assert known.cost(asking()) == pytest.approx((100 * 1 + 10 * 10) / 1e6)
    assert "counted 50 output tokens where 10 was the most expected" in known.learn(asking(), Usage(100, 50))
    assert known.cost(asking()) == pytest.approx((100 * 1 + MARGIN * 50 * 10) / 1e6)
    assert known.learn(asking(), Usage(100, 60)) == ""
    assert known.cost(asking()) == pytest.approx((100 * 1 + MARGIN * 60 * 10) / 1e6)
    assert "counted 300 prompt tokens" in known.learn(asking(), Usage(300, 60))
    assert known.cost(asking()) == pytest.approx((MARGIN * 300 * 1 + MARGIN * 60 * 10) / 1e6)


def test_hidden_reasoning_beyond_the_limit_is_learned_from_the_total() -> None:
    known = bounds(**PRICED)
    assert known.learn(asking(), Usage(100, 5, total_tokens=400))
    assert known.cost(asking()) == pytest.approx((100 * 1 + MARGIN * 300 * 10) / 1e6)


@pytest.mark.parametrize(
    ("body", "per_prompt_token"),
    [(b"x" * 511, 1.0), (b"x" * 2000, 1.25), (b'{"cache_control":{"ttl":"1h"}}' + b"x" * 2000, 2.5)],
)
def test_a_prompt_that_a_cache_may_take_is_reserved_at_the_price_of_writing_it(
    body: bytes, per_prompt_token: float
) -> None:
    assert bounds(**PRICED).cost(asking(body)) == pytest.approx((len(body) * per_prompt_token + 10 * 10) / 1e6)
