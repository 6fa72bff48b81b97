"""Make `earlier_folder/`: four jobs with their folders, as the version that is imported here leaves them.

`PYTHONPATH=.:tests/support python tests/journeys/make_earlier_folder.py FOLDER`, as root or where users may have
namespaces of their own. FOLDER must not exist. The runs see it as /srv, as the user mia on the host laptop, so that no
name of the machine gets into the files. A job folder is kept as `OUTPUT.folder`, as git ignores `*.job`.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from batch_server import Provider, serving
from chat_server import Canned, ChatServer, Seen, completion, problem

PORT = 18765
URL = f"http://127.0.0.1:{PORT}/v1"
ENTER = 'hostname laptop; mount --bind "$1" /srv; cd /srv; shift; exec "$@"'

REVIEWS: list[tuple[str | None, str, str]] = [
    # text, gold label, and how the endpoint answers: a key of REPLIES
    ("The pump hums and never stops.", "good", "good"),
    ("Broke on the second day.", "bad", "bad"),
    ("It is a lamp. It gives light.", "mixed", "bare"),
    ("Superb, bought three more of them.", "good", "fence"),
    ("Broke on the second day.", "bad", "bad"),
    ("Too loud, but it heats well.", "mixed", "prose"),
    ("What is this even for?", "bad", "refused"),
    ("I will find out where you live.", "bad", "filtered answer"),
    ("You will all pay for this.", "bad", "filtered prompt"),
    ("Very long story, part one.", "mixed", "too long"),
    ("Very long story, part two.", "mixed", "too long at first"),
    (None, "", ""),
    ("Fits, though the colour is off.", "mixed", "repaired once"),
    ("Fine, I suppose?", "good", "repaired twice"),
    ("No comment.", "mixed", "never fits"),
    ("Schön, aber teuer — 5 € zu viel.", "mixed", "mixed"),
    ("とても良い", "good", "good"),
    ("It works, and works, and works.", "good", "grows"),
    ("And so on, and so on, and so on.", "mixed", "always cut off"),
    ("Arrived with a scratch; works.", "mixed", "cut off in time"),
    ("Half of it was missing.", "bad", "repaired, then cut off, then whole"),
    ("\"Quoted\", with 'both' kinds.", "good", "broken JSON"),
    ("Two\nlines.", "bad", "bad"),
    ("=SUM(A1:A2) is what it displays.", "bad", "bad"),
    *[(f"Order {number}: as described.", "good", ("good", "mixed", "bad")[number % 3]) for number in range(16)],
]
LABELS_TOML = """
[endpoint]
base_url = "http://127.0.0.1:9/v1"
name = "fixture"
model = "small-1"

[prompt]
template = "How does this review sound?\\n{{ text }}"
system = "You label reviews."

[parameters]
temperature = 0.0
max_tokens = 40

[answer]
labels = ["good", "bad", "mixed"]
repairs = 2
grow_on_truncation = 160

[prices]
input = 1.0
output = 4.0
"""
OPINIONS_TOML = """
[endpoint]
base_url = "http://127.0.0.1:9/v1"
name = "fixture"
model = "small-1"

[prompt]
template = "Grade this essay: {{ essay }}"

[parameters]
seed = 7

[answer]
samples = 2
logprobs = true

[answer.schema]
type = "object"
required = ["grade", "topics", "is_long"]
additionalProperties = false

[answer.schema.properties]
grade = { type = "integer", minimum = 1, maximum = 6 }
topics = { type = "array", items = { type = "string" } }
is_long = { type = "boolean" }
remark = { type = ["string", "null"] }

[prices]
input = 1.0
output = 4.0
"""
STOPPED_TOML = """
[endpoint]
base_url = "http://127.0.0.1:9/v1"
name = "fixture"
model = "small-1"

[parameters]
max_tokens = 20

[limits]
concurrency = 1
max_cost = 0.0005

[prices]
input = 2.0
output = 4.0
"""
BATCH_TOML = """
[endpoint]
base_url = "http://127.0.0.1:9/v1"
name = "fixture"
model = "small-1"

[prompt]
template = "How does this review sound?\\n{{ text }}"

[answer]
labels = ["good", "bad", "mixed"]

[run]
how = "batch"
batch_requests = 8
poll_seconds = 0.01
"""


def label(word: str, **more: Any) -> Canned:
    return Canned(body=completion(json.dumps({"label": word}), model="small-1-0613", **more))


MISFIT = label("meh")
CUT_OFF = Canned(body=completion('{"label": "mix', finish_reason="length"))
TOO_LONG = Canned(413, problem("prompt is too long"))
LONGER = {"prompt_tokens": 12, "completion_tokens": 90, "total_tokens": 102}
REPLIES = {
    # by REVIEWS's third column, the replies to a review's requests in their order; the last one is repeated
    "good": [label("good")],
    "bad": [label("bad")],
    "mixed": [label("mixed")],
    "bare": [Canned(body=completion("**Mixed**."))],
    "fence": [Canned(body=completion('```json\n{"label": "good"}\n```'))],
    "prose": [Canned(body=completion('I would say {"label": "mixed"} is right.'))],
    "broken JSON": [Canned(body=completion("{'label': 'good',"))],
    "refused": [Canned(body=completion(None, refusal="I cannot help with that."))],
    "filtered answer": [Canned(body=completion("", finish_reason="content_filter"))],
    "filtered prompt": [Canned(400, problem("The prompt was filtered.", code="content_filter"))],
    "too long": [TOO_LONG],
    "too long at first": [TOO_LONG, label("mixed")],
    "repaired once": [MISFIT, label("mixed")],
    "repaired twice": [MISFIT, MISFIT, label("good")],
    "never fits": [MISFIT],
    "grows": [CUT_OFF, label("good", usage=LONGER)],
    "always cut off": [CUT_OFF],
    "cut off in time": [label("mixed", finish_reason="length")],
    "repaired, then cut off, then whole": [MISFIT, CUT_OFF, label("bad")],
}


def label_reply(seen: Seen, attempt: int) -> Canned:
    """What the endpoint answers to a review: as its row in REVIEWS says."""
    messages = seen.body["messages"]
    asked, repairs, has_room = messages[1]["content"], len(messages) // 2 - 1, seen.body["max_tokens"] > 40
    kind = next(kind for text, _, kind in REVIEWS if text is not None and asked.endswith(f"\n{text}"))
    step = attempt - 1 if kind.startswith("too long") else repairs + has_room
    return REPLIES[kind][min(step, len(REPLIES[kind]) - 1)]


def opinion_reply(seen: Seen, _attempt: int) -> Canned:
    """A grade by the essay's number and the sample, with its probabilities; the last essay's second sample is none."""
    number, sample = int(seen.body["messages"][0]["content"].rpartition(" ")[2]), seen.body["seed"] - 7
    if number == 9 and sample == 1:
        return Canned(body=completion('{"grade": "six"}'))
    grade = 1 + (number + sample * (number % 3 == 0)) % 6
    said = {"grade": grade, "topics": ["sea", f"essay {number}"], "is_long": number > 5, "remark": None}
    reply = json.loads(completion(json.dumps(said)))
    reply["choices"][0]["logprobs"] = {"content": [{"token": json.dumps(said), "logprob": -0.125 * (1 + sample)}]}
    return Canned(body=json.dumps(reply).encode())


def stopped_reply(seen: Seen, _attempt: int) -> Canned | None:
    """One question breaks the endpoint each time that it is asked."""
    broken = Canned(500, problem("Something broke."), headers={"retry-after-ms": "10"})
    return broken if seen.prompt == "Question 2" else None


def pipeline(folder: Path, *words: str, exit_code: int) -> None:
    command = ["unshare", "-rmu", "sh", "-ec", ENTER, "sh", str(folder), sys.executable, "-m", "pipeline", *words]
    places = os.pathsep.join(str(Path(place).absolute()) for place in os.environ["PYTHONPATH"].split(os.pathsep))
    environment = {**os.environ, "USER": "mia", "LOGNAME": "mia", "PYTHONPATH": places}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode != exit_code:
        raise SystemExit(f"pipeline {' '.join(words)} ended with {done.returncode}, not {exit_code}")


def make_labels(folder: Path) -> None:
    (folder / "job.toml").write_text(LABELS_TOML.lstrip())
    with (folder / "in.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(f"{number:03}", text, gold) for number, (text, gold, _) in enumerate(REVIEWS)]
        csv.writer(file, lineterminator="\n").writerows([("id", "text", "gold"), *rows])
    line = ("run", "in.csv", "-c", "job.toml", "--base-url", URL, "-o", "labels.csv")
    with ChatServer(label_reply, port=PORT):
        pipeline(folder, *line, "--limit", "20", exit_code=3)
        pipeline(folder, *line, "--limit", "20", "--retry", "failed", exit_code=3)
        pipeline(folder, *line, exit_code=3)


def make_opinions(folder: Path) -> None:
    (folder / "job.toml").write_text(OPINIONS_TOML.lstrip())
    (folder / "in.ndjson").write_text("".join(f'{{"n": {n}, "essay": "Of the sea, {n}"}}\n' for n in range(10)))
    with ChatServer(opinion_reply, port=PORT):
        line = ("run", "in.ndjson", "-c", "job.toml", "--base-url", URL, "-o", "opinions.parquet")
        pipeline(folder, *line, exit_code=0)


def make_stopped(folder: Path) -> None:
    (folder / "job.toml").write_text(STOPPED_TOML.lstrip())
    (folder / "in.tsv").write_text("".join(["prompt\n", *(f"Question {number}\n" for number in range(12))]))
    with ChatServer(stopped_reply, port=PORT):
        line = ("run", "in.tsv", "-c", "job.toml", "--base-url", URL, "-o", "stopped.csv")
        pipeline(folder, *line, "--limit", "4", exit_code=3)  # its attempts run out
        pipeline(folder, *line, exit_code=4)


def make_batch(folder: Path) -> None:
    (folder / "job.toml").write_text(BATCH_TOML.lstrip())
    (folder / "in.csv").write_text("".join(["text\n", *(f"Order {number}: as described.\n" for number in range(20))]))
    provider = Provider(looks=9)
    with serving(provider, port=PORT):
        line = ("run", "in.csv", "-c", "job.toml", "--base-url", URL, "-o", "batch.csv")
        pipeline(folder, *line, "--no-wait", exit_code=75)
    files = {name: content.decode() for name, content in provider.files.items()}
    (folder / "provider.json").write_text(json.dumps({"files": files, "batches": provider.batches}, indent=1))


def main() -> None:
    home = Path(sys.argv[1])
    for make in (make_labels, make_opinions, make_stopped, make_batch):
        folder = home / make.__name__.removeprefix("make_")
        folder.mkdir(parents=True)
        make(folder)
        for job_folder in folder.glob("*.job"):
            (job_folder / ".gitignore").unlink()  # with it, git would leave the folder out
            for file in (job_folder / "store").glob("*-*"):  # what SQLite keeps beside a store, and makes anew
                file.unlink()
            job_folder.rename(job_folder.with_suffix(".folder"))


if __name__ == "__main__":
    main()
