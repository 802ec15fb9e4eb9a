"""DSPy: ReAct, which asks for its tools in words, through litellm."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it is fetched when litellm is imported

import dspy

dspy.configure(lm=dspy.LM("openai/m", cache=False))


def find(po_number: str) -> str:
    """Find an order."""
    return f"found {po_number}, total 42"


def answer(text):
    """The answer of the module."""
    return {"said": dspy.ReAct("question -> answer", tools=[find], max_iters=3)(question=text).answer}
