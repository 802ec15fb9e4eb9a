"""How long prompts are, before they are rendered."""

from beam_ray.define.llm_call import CONVERSATION, TASK
from beam_ray.define.workflow import Workflow

CHARACTERS_PER_TOKEN = 4


def prompt_characters(workflow: Workflow, node: str, query: float, before: float) -> float:
    """The characters of the prompt of *node* with a task query, and a conversation *before* it, of these lengths."""
    call, found = workflow.nodes[node].call, 0.0
    for turn in call.prompt if call else ():
        taken = turn.content.strip() if turn.role == CONVERSATION else ""
        if taken == TASK:
            found += before
        elif said := workflow.nodes[taken].call if taken in workflow.nodes else None:
            found += prompt_characters(workflow, taken, query, before) + said.max_tokens * CHARACTERS_PER_TOKEN
        else:
            found += len(turn.content) + (query if "task_query" in turn.content else 0)
    return found
