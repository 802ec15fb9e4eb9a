"""pydantic-ai with a typed output, which it asks for as a tool of its own."""

from pydantic import BaseModel
from pydantic_ai import Agent


class Total(BaseModel):
    """What is to be found out."""

    said: str


agent = Agent("openai-chat:m", output_type=Total)


@agent.tool_plain
def find(po_number: str) -> str:
    """Find an order."""
    return f"found {po_number}, total 42"


async def answer(text):
    """The output."""
    return (await agent.run(text)).output.model_dump()
