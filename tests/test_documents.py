"""The documents keep their word: their commands run, what they print is shown, what they name exists."""

import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from chat_server import ChatServer
from click.testing import CliRunner
from generate import (
    CONSOLE,
    DOCUMENTS,
    FENCE,
    ROOT,
    Block,
    blocks,
    copy_examples,
    environment,
    has_local_model,
    masked,
    type_session,
    with_architecture,
    with_helpers,
    with_settings_table,
)

from pipeline import Job
from pipeline.cli.group import main
from pipeline.costs import PriceList
from pipeline.job.retirements import find_retirement
from pipeline.records import STATUSES, Exit
from pipeline.runs.init import guess_columns, job_text

README, REFERENCE = ROOT / "README.md", ROOT / "configs" / "README.md"
BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
KEY = "sk-test-documents"
OPENAI = "https://api.openai.com/v1"
ENDPOINT = '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n\n'

RUN_BY_A_TEST = {"sh", "console", "toml", "python"}
README_BYTES, CONTRIBUTING_LINES = 12_000, 60
LAST_DAY_SERVED = date(2027, 12, 31)
"""Every model that is named here is served until then, as far as its provider has told."""
PARAGRAPH = 60
"""Shorter ones, such as a single command, may well be written twice."""

INLINE = re.compile(r"`([^`]+)`")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FILE = re.compile(r"(?<![\w./-])((?:configs|pipeline|sample_data|tests|\.github)/[\w./-]*\w)(?![\w/<*])")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
PIPELINE_LINE = re.compile(r"(?<!from )\bpipeline +([a-z]+)\b(.*)")
SESSION_LINES = 13
"""How many lines of the examples' table the session of the front page reads."""
FOREIGN_FLAGS = {"--query", "--resource", "--force", "--no-deps", "--time"}
"""Those of pipx, pip and Slurm."""


def document_id(document: Path) -> str:
    return str(document.relative_to(ROOT))


def on_this_machine(folder: Path, url: str) -> dict[str, str]:
    """A copy of the examples that asks a server here in place of OpenAI; the environment to type commands in.

    Job files that commands write name OpenAI too: for these the variables of the flags name the server.
    """
    copy_examples(folder)
    prices = "prices.input=0.4 prices.output=1.6"  # those of a provider are known by its address
    for config in (folder / "configs").glob("*.toml"):
        text = config.read_text("utf-8")
        if OPENAI in text:
            config.write_text(text.replace(OPENAI, url) + "\n[prices]\ninput = 0.4\noutput = 1.6\n", "utf-8")
    flags = {"BASE_URL": url, "SETTINGS": prices}
    commands = ("RUN", "PREVIEW", "ESTIMATE")
    variables = {f"PIPELINE_{command}_{flag}": flags[flag] for command in commands for flag in flags}
    return environment(OPENAI_API_KEY=KEY, **variables)


def run_of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and not block.is_example]


def documents_with(language: str) -> list[Path]:
    return sorted({block.document for block in run_of(language)})


def script_of(document: Path, url: str) -> str:
    script = "".join(block.text for block in run_of("sh") if block.document == document)
    return script.replace(OPENAI, url).replace("sk-…", KEY)


def test_every_block_is_run_by_a_test_or_marked_as_an_example() -> None:
    for document in DOCUMENTS:
        fences = sum(line.startswith("```") for line in document.read_text("utf-8").splitlines())
        assert fences == 2 * len([*blocks(document)]), f"{document}: a block is not closed, or its tag is not known"
    unmarked = [block for block in BLOCKS if block.language not in RUN_BY_A_TEST and not block.is_example]
    assert unmarked == [], "write `example` behind the language of a block that no test runs"


@pytest.mark.parametrize("document", documents_with("sh"), ids=document_id)
def test_every_command_runs_in_the_order_of_its_document(document: Path, tmp_path: Path) -> None:
    with ChatServer(key=KEY) as server:
        variables = on_this_machine(tmp_path, server.url)
        done = subprocess.run(
            ["bash", "-euxc", script_of(document, server.url)],
            cwd=tmp_path, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if document == README:
            assert server.arrived == 60, "the pilot's answers are not asked for again"
            labels = pl.read_csv(tmp_path / "labels.csv", infer_schema=False)
            assert labels["status"].to_list() == ["ok"] * 60
            assert set(labels["label"]) == {"positive", "negative"}


@pytest.mark.skipif(not has_local_model(), reason="the local model is not installed: make local-model")
@pytest.mark.parametrize("document", documents_with("console"), ids=document_id)
def test_a_session_shows_what_its_commands_print(document: Path, tmp_path: Path) -> None:
    copy_examples(tmp_path)
    if document == README:  # fewer rows give the same words with other numbers, in less time
        reviews = tmp_path / "sample_data" / "reviews.csv"
        reviews.write_text("".join(reviews.read_text("utf-8").splitlines(keepends=True)[:SESSION_LINES]), "utf-8")
    for session in run_of("console"):
        if session.document == document:
            printed = type_session(session.text, tmp_path, environment())
            assert masked(session.text) == masked(printed), "python tests/support/generate.py writes it anew"


@pytest.mark.parametrize("block", run_of("toml"), ids=lambda block: document_id(block.document))
def test_every_job_file_or_part_of_one_makes_requests(block: Block, tmp_path: Path) -> None:
    copy_examples(tmp_path)
    job_file = tmp_path / "configs" / "shown.toml"
    parts = "" if "[endpoint]" in block.text else ENDPOINT
    parts += "" if "[prompt]" in block.text else '[prompt]\ntemplate = "{{ review }}"\n\n'
    job_file.write_text(parts + block.text, "utf-8")
    assert '"messages"' in typed("preview", str(tmp_path / "sample_data" / "reviews.csv"), "-c", str(job_file))


@pytest.mark.parametrize("block", run_of("python"), ids=lambda block: document_id(block.document))
def test_every_python_example_runs(block: Block, tmp_path: Path) -> None:
    with ChatServer(key=KEY) as server:
        variables = on_this_machine(tmp_path, server.url)
        done = subprocess.run(
            [sys.executable, "-c", block.text], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    if block.document == README:
        assert done.stdout.startswith("0 10 0 0.0")


def paragraphs(text: str) -> Iterator[str]:
    """What blank lines, fences and list or table marks set apart, with single spaces; a session is one."""
    for session in CONSOLE.findall(text):
        yield " ".join(session[1].split())
    for part in re.split(r"\n\s*\n|^```.*$|\n(?=- |\d\. |\| )", CONSOLE.sub("", text), flags=re.MULTILINE):
        yield " ".join(part.split())


def test_no_paragraph_is_written_twice() -> None:
    seen = [part for document in DOCUMENTS for part in paragraphs(document.read_text("utf-8")) if len(part) > PARAGRAPH]
    assert sorted({part for part in seen if seen.count(part) > 1}) == []


def test_the_front_page_and_the_guide_for_contributors_stay_short() -> None:
    assert len(README.read_bytes()) < README_BYTES
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text("utf-8")
    assert len(guide.splitlines()) <= CONTRIBUTING_LINES


def test_the_table_of_keys_is_that_of_the_code() -> None:
    text = REFERENCE.read_text("utf-8")
    assert with_settings_table(text) == text, "python tests/support/generate.py writes it anew"


def test_the_architecture_names_the_packages_layers_and_files_of_the_code() -> None:
    text = (ROOT / "pipeline" / "README.md").read_text("utf-8")
    assert with_architecture(text) == text, "python tests/support/generate.py writes it anew"
    table = text.partition("## To change something, open")[2].partition("\n## ")[0]
    named = re.findall(r"`((?!tests)[a-z_]+/[a-z_/]+\.(?:py|html))`", table)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / "pipeline" / path).exists()] == []


def test_every_added_column_status_exit_code_and_key_of_the_state_is_documented(tmp_path: Path) -> None:
    table, output = ROOT / "sample_data" / "reviews.csv", tmp_path / "out.csv"
    with ChatServer() as server:
        typed(
            "run", str(table), "-o", str(output), "--limit", "2", "-p", "{{ review }}", "-m", "m",
            "--base-url", server.url, "--set", 'answer.labels=["a", "b"]', "--set", "answer.samples=2",
            "--set", "answer.logprobs=true",
        )  # fmt: skip
    added = set(pl.read_csv(output).columns) - set(pl.read_csv(table).columns)
    assert len(added) >= 20
    reference, front_page = REFERENCE.read_text("utf-8"), README.read_text("utf-8")
    state = json.loads(typed("status", str(output), "--json"))
    assert [name for name in sorted({*added, *state, *STATUSES}) if f"`{name}`" not in reference] == []
    assert [status for status in STATUSES if f"`{status}`" not in front_page] == []
    for code in Exit:
        assert re.search(rf"^\| (\d+, )*{code.value}\b", front_page, re.MULTILINE), code


def test_every_command_has_its_line_on_the_front_page() -> None:
    assert [name for name in main.commands if f"`{name}`" not in README.read_text("utf-8")] == []


def code_of(document: Path) -> list[str]:
    """What is set as code: each line of a block, and what stands between backticks."""
    lines = itertools.chain.from_iterable(block.text.splitlines() for block in blocks(document))
    spans = INLINE.findall(FENCE.sub("", document.read_text("utf-8")))
    return [*lines, *(" ".join(span.split()) for span in spans)]


def typed(*words: str) -> str:
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def flags_of(command: str) -> set[str]:
    return set(FLAG.findall(typed(command, "--help")))


@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_every_command_and_flag_that_is_named_exists(document: Path) -> None:
    known = {name: flags_of(name) for name in main.commands}
    for code in code_of(document):
        line = re.sub(r"python (-m|tests/).*|make .*", "", code)
        if found := PIPELINE_LINE.search(line):
            command, words = found.groups()
            assert command in known, code
            assert set(FLAG.findall(words.partition("#")[0])) <= known[command], code
        else:
            assert set(FLAG.findall(line)) <= set.union(*known.values()) | FOREIGN_FLAGS, code
        for script, words in re.findall(r"python (tests/\S+\.py)([^`#]*)", code):
            text = (ROOT / script).read_text("utf-8")
            assert [flag for flag in FLAG.findall(words) if f'"{flag}"' not in text] == [], code


@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_every_file_test_and_make_target_that_is_named_exists(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for code in code_of(document):
        assert [name for name in FILE.findall(code) if not (ROOT / name).exists()] == []
        for target in re.findall(r"\bmake ([a-z-]+)", code):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        if re.fullmatch(r"test_[a-z_0-9]+", code):
            assert f"def {code}(" in tests, code


def test_every_helper_of_the_tests_is_listed() -> None:
    guide = (ROOT / "tests" / "README.md").read_text("utf-8")
    assert with_helpers(guide) == guide, "python tests/support/generate.py writes it anew"


def anchors(document: Path) -> set[str]:
    """What GitHub makes of headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text("utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        page = target / "README.md" if target.is_dir() else target
        assert not anchor or anchor in anchors(page), link


def examples() -> list[Path]:
    return sorted((ROOT / "configs").glob("*.toml"))


def test_every_example_is_listed_and_the_providers_are_those_of_the_examples() -> None:
    reference = REFERENCE.read_text("utf-8")
    assert [path.name for path in examples() if f"[{path.name}]({path.name})" not in reference] == []
    rows = re.findall(
        r"^\| [^|]+ \| `(\S+)` \| (.+?) \| \[[^|]+\]\((configs/\S+)\) \|$", README.read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) >= 5
    for address, variable, name in rows:
        text = (ROOT / name).read_text("utf-8")
        assert f'base_url = "{address}"' in text
        assert variable.startswith("none") or f'api_key_env = "{variable.strip("`")}"' in text


@pytest.mark.parametrize("config", examples(), ids=lambda path: path.stem)
def test_the_line_at_the_top_of_each_example_can_be_typed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"^# .*?\bpipeline run (.*)$", config.read_text("utf-8"), re.MULTILINE)
    assert lines
    monkeypatch.chdir(ROOT)
    for line in lines:
        words = shlex.split(line)
        assert words[words.index("-c") + 1] == document_id(config)
        table, _, asked = words[0], words.index("-o"), [*words]
        for flag in ("--no-wait", "--yes"):
            if flag in asked:
                asked.remove(flag)
        place = asked.index("-o")
        del asked[place : place + 2]
        told = typed("preview", *asked)
        assert '"messages"' in told, table
        assert "cannot be asked" not in told


def shipped_models() -> Iterator[tuple[str, str, str]]:
    """Each model that the repository's job files, blocks and command lines name: its file, the address, the name."""
    texts = [(document_id(path), path.read_text("utf-8")) for path in examples()]
    texts += [(document_id(block.document), block.text) for block in BLOCKS if block.language == "toml"]
    texts.append(
        ("pipeline init", job_text(["review"], guess_columns(pl.DataFrame({"review": ["Lovely."]})), None, None))
    )
    for name, text in texts:
        job = tomllib.loads(text)
        endpoint, answer = job.get("endpoint", {}), job.get("answer", {})
        models = [*filter(None, [endpoint.get("model")]), *answer.get("models", [])]
        yield from ((name, endpoint.get("base_url", OPENAI), model) for model in models)
    for document in DOCUMENTS:
        for line in code_of(document):
            if found := re.search(r"--base-url (\S+) -m (\S+)", line):
                yield document_id(document), found[1], found[2]


@pytest.mark.parametrize("day", [date.today(), LAST_DAY_SERVED], ids=["today", "2027"])  # noqa: DTZ011 - of whoever tests
def test_no_shipped_job_file_names_a_model_that_has_ended(day: date) -> None:
    named = list(shipped_models())
    assert len({name for name, *_ in named}) > len(examples())
    ends = [(name, model, find_retirement(address, model)) for name, address, model in named]
    ended = [
        f"{name}: {end.provider} ends {model} on {end.day}; its successor: {end.successor or 'not known'}"
        for name, model, end in ends
        if end is not None and end.day <= day
    ]
    assert ended == []


REFUSED = {
    "gpt-": {"temperature", "top_p", "logprobs", "max_tokens", "stop"},
    "gemini-": {"temperature", "top_p", "top_k"},
}
"""Parameters that the models of these names refuse or ignore, also where they are told not to reason."""


@pytest.mark.parametrize("config", examples(), ids=lambda path: path.stem)
def test_an_example_sends_what_its_model_takes_and_its_budget_can_be_kept(config: Path) -> None:
    job = Job.load([ROOT / "sample_data" / "reviews.csv"], config=config)
    family = next((name for name in REFUSED if job.endpoint.model.startswith(name)), "")
    assert not REFUSED.get(family, set()) & set(job.parameters)
    assert job.output_caps or job.limits.max_cost is None
    assert job.limits.max_cost is None or PriceList(job).unknown is None
