"""The OpenAI Agents SDK, which asks by the Responses API."""

from agents import Agent, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)


@function_tool
def find(po_number: str) -> str:
    """Find an order."""
    return f"found {po_number}, total 42"


async def answer(text):
    """The agent's final output."""
    agent = Agent(name="orders", instructions="Find the order.", model="m", tools=[find])
    return {"said": (await Runner.run(agent, text)).final_output}
