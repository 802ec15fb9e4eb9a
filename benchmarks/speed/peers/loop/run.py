"""The lower bound: a plain asyncio loop over the openai client, a line of JSON per step."""

import asyncio
import json
import sys
import time

from openai import AsyncOpenAI


async def main(url: str, tasks: int, steps: int, concurrency: int) -> float:
    """Seconds from the first call to the last line."""
    client, permits = AsyncOpenAI(base_url=f"{url}/v1", api_key="none"), asyncio.Semaphore(concurrency)
    with open(sys.argv[5], "w", encoding="utf-8") as out:

        async def one(task: int) -> None:
            text = ""
            for step in range(1, steps + 1):
                async with permits:
                    messages = [{"role": "user", "content": f"task {task} step {step} {text[:60]}"}]
                    answer = await client.chat.completions.create(model="x", messages=messages, temperature=0, max_tokens=64)
                text = answer.choices[0].message.content or ""
                out.write(json.dumps({"task": task, "step": step, "text": text, "score": 100 if "ok" in text else 0}) + "\n")

        began = time.monotonic()
        await asyncio.gather(*(one(task) for task in range(tasks)))
        return time.monotonic() - began


if __name__ == "__main__":
    seconds = asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
