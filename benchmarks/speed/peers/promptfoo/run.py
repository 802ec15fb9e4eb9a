"""promptfoo: a provider that makes the four calls of a task, an assertion per step, its own database and cache."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def main(url: str, tasks: int, steps: int, concurrency: int, out: Path) -> float:
    """Seconds of the whole command: node's start is in it."""
    modules = HERE.parent / ".venv" / "promptfoo" / "node_modules"
    out.mkdir(parents=True)
    # a module is looked for from where the file is that asks for it
    (out / "node_modules").symlink_to(modules)
    shutil.copy(HERE / "provider.mjs", out)
    checks = [{"type": "javascript", "value": f"JSON.parse(output)[{step}].includes('ok')"} for step in range(steps)]
    config = {
        "prompts": ["{{task}}"],
        "providers": ["file://provider.mjs"],
        "defaultTest": {"assert": checks},
        "tests": [{"vars": {"task": str(task)}} for task in range(tasks)],
    }
    (out / "config.json").write_text(json.dumps(config))
    environment = {
        "PROMPTFOO_CONFIG_DIR": str(out / "home"),
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
        # -j is not heard by the client that a provider imports
        "PROMPTFOO_FETCH_CONNECTIONS": str(concurrency),
        "SPEED_URL": url,
        "SPEED_STEPS": str(steps),
    }
    command = [str(modules / ".bin" / "promptfoo"), "eval", "-c", "config.json", "-j", str(concurrency), "--no-table", "--no-progress-bar", "-o", "out.json"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=out, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    stats = json.loads((out / "out.json").read_text())["results"]["stats"] if (out / "out.json").exists() else {}
    if stats.get("successes") != tasks:
        raise SystemExit(f"promptfoo left with {done.returncode}: {stats}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds


if __name__ == "__main__":
    seconds = main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
