"""Plain openai: a loop of tool calls over chat completions, then a streamed response, a streamed chat and embeddings."""

import asyncio
import json

import openai

TOOL = {"name": "find", "description": "Find an order.", "parameters": {"type": "object", "properties": {"po_number": {"type": "string"}}}}


def find(po_number):
    """An order."""
    return {"po_number": po_number, "total": 42}


def answer(text):
    """The answer, and what else the library gave."""
    client = openai.OpenAI()
    turns = [{"role": "user", "content": text}]
    while True:
        message = client.chat.completions.create(model="m", messages=turns, tools=[{"type": "function", "function": TOOL}]).choices[0].message
        if not message.tool_calls:
            break
        turns.append(message.to_dict())
        for call in message.tool_calls:
            turns.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(find(**json.loads(call.function.arguments)))})
    vectors = client.embeddings.create(model="m", input=[text, "other"]).data
    return {"said": message.content, **asyncio.run(streamed(text)), "vectors": [len(vectors), len(vectors[0].embedding)]}


async def streamed(text):
    """A response and a chat, put together from their pieces."""
    client = openai.AsyncOpenAI()
    response, chat, usage = "", "", 0
    async for event in await client.responses.create(model="m", input=f"found {text}", stream=True):
        response += event.delta if event.type == "response.output_text.delta" else ""
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": f"found {text}"}], stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        chat += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage.total_tokens if chunk.usage else usage
    return {"response": response, "chat": chat, "counted": usage > 0}
