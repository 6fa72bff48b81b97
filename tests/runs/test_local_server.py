"""A model on this machine is named by its weights and served for as long as the run asks."""

from pathlib import Path

import httpx
import pytest
from builders import job

from pipeline.endpoint.local_model import find_gguf, gguf_sha256
from pipeline.runs.local_server import name_by_weights, served

SMOLLM2 = "local:smollm2-135m"


def test_answers_of_a_local_model_are_filed_under_its_weights_wherever_their_file_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(b"GGUF and the same weights")
    first, second = (name_by_weights(job(f"local:{tmp_path}/{name}")) for name in ("a/one.gguf", "two.gguf"))
    assert (first.endpoint.name, first.endpoint.model) == ("local", gguf_sha256(tmp_path / "two.gguf"))
    assert second.endpoint.model == first.endpoint.model
    assert second.endpoint.filed_under == first.endpoint.filed_under


def test_a_job_with_another_endpoint_stays_as_it_is() -> None:
    remote = job()
    assert name_by_weights(remote) is remote
    with served(remote) as reachable:
        assert reachable is remote


def test_a_local_model_can_be_asked_inside_the_block_alone(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
    find_gguf(SMOLLM2, tmp_path)
    local = job(SMOLLM2, output=tmp_path / "out.csv", limits__concurrency=3)
    local.folder.mkdir()
    with served(local) as reachable:
        key = reachable.endpoint.key()
        assert key is not None
        assert reachable.limits.concurrency == 3
        headers = {"authorization": f"Bearer {key.get_secret_value()}"}
        models = httpx.get(f"{reachable.endpoint.base_url}/models", headers=headers)
        assert models.status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{reachable.endpoint.base_url}/models", headers=headers)
