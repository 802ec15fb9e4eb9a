"""One target by coverage: ``python -m tests.fuzz.coverage TARGET SECONDS SEED``, see ``__main__``."""

import sys
import tempfile
from pathlib import Path

import atheris

READERS = (
    "beam_ray.define",
    "beam_ray.llm.answer",
    "beam_ray.llm.chat_api",
    "beam_ray.llm.refusals",
    "beam_ray.llm.responses_api",
    "beam_ray.tasks.parse",
    "beam_ray.tasks.text_files",
    "beam_ray.tasks.traces",
    "beam_ray.backtest.bundle",
    "beam_ray.console.forms",
    "beam_ray.improve.draft_text",
    "ruamel.yaml",
    "jinja2",
)

with atheris.instrument_imports(include=list(READERS)):
    from tests.fuzz.targets import holds, seeds


def main(target: str, seconds: str, seed: str) -> None:
    """Try texts until the time is up; the process ends in here."""
    folder = Path(tempfile.mkdtemp(prefix="beam-ray-fuzz-"))
    for index, text in enumerate(seeds(target)):
        (folder / str(index)).write_text(text, encoding="utf-8", errors="replace")
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        "-timeout=60",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/found-",
        "-max_len=4096",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], lambda body: holds(target, body.decode("utf-8", "replace")))
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:4])
