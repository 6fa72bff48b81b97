"""Writes what is made from the code: the schema that editors use, and the README's table of settings.

Run it after a change to `job.py`:  python tests/generate.py
"""

import json
from pathlib import Path

from pipeline.job.job import JobFile, settings

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def schema_text() -> str:
    return json.dumps(JobFile.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def settings_table() -> str:
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    lines += [f"| `{s.name}` | {s.kind} | {f'`{s.default}`' if s.default else ''} | {s.help} |" for s in settings()]
    return "\n".join(lines)


def readme_with_table(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{settings_table()}\n{END}{after}"


if __name__ == "__main__":
    (ROOT / "configs" / "job.schema.json").write_text(schema_text(), "utf-8")
    readme = ROOT / "README.md"
    readme.write_text(readme_with_table(readme.read_text("utf-8")), "utf-8")
