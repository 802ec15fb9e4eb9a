"""
The prompts of a workflow in MLflow's prompt registry, one version per text.
"""

import os
import threading
from collections.abc import Iterator, Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import PromptVersion
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import PROMPT_EXPERIMENT_IDS_TAG_KEY

from beam_ray.define.fingerprint import digest
from beam_ray.define.llm_call import CONVERSATION, LlmCall
from beam_ray.define.workflow import Workflow
from beam_ray.tracking.watchdog import Heartbeat

LONGEST = 100_000
"""The longest prompt that MLflow's registry accepts, in characters."""

_DIGEST = "beam_ray.digest"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def production_alias(uri: str, workflow: Workflow, beat: Heartbeat) -> dict[str, int]:
    """Point the alias ``production`` at the prompts of *workflow*; returns prompt name to version."""
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    versions = register(client, workflow, "published", beat)
    for version in versions.values():
        client.set_prompt_alias(version.name, "production", int(version.version))
        beat(version.name)
    return {version.name: int(version.version) for version in versions.values()}


def register(client: MlflowClient, workflow: Workflow, because: str, beat: Heartbeat) -> dict[str, PromptVersion]:
    """
    Register the prompt of each model node; returns node to registered version.

    ``register_prompt`` always creates a new version, so a version with the same text is
    looked up first. A prompt that is too long for the registry is left out.
    """
    versions = {}
    for node in workflow.order:
        call = workflow.nodes[node].call
        if call is None:
            continue
        template = _template(call)
        if len(str(template)) > LONGEST:
            continue
        name, identity = f"{workflow.name}.{node}", digest("mlflow-prompt/1", template)[:12]
        known = {version.tags.get(_DIGEST): version for version in _versions(client, name)}
        beat(name)
        versions[node] = known.get(identity) or client.register_prompt(name, template, commit_message=because, tags={_DIGEST: identity})
        beat(name)
    return versions


def link(client: MlflowClient, versions: Mapping[str, PromptVersion], experiment_id: str, beat: Heartbeat) -> None:
    """List the prompts on the experiment's prompts page, including prompts first registered by another experiment."""
    _wait_for_mlflow_links()
    for version in versions.values():
        prompt = client.get_prompt(version.name)
        ids = [one for one in (prompt.tags.get(PROMPT_EXPERIMENT_IDS_TAG_KEY, "") if prompt else "").split(",") if one]
        if experiment_id not in ids:
            client.set_prompt_tag(version.name, PROMPT_EXPERIMENT_IDS_TAG_KEY, f",{','.join([*ids, experiment_id])},")
        beat(version.name)


def _wait_for_mlflow_links() -> None:
    # mlflow links a prompt that it registers in a background thread; two writers of one tag collide.
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt_to_experiment"):
            thread.join()


def register_in_experiment(experiment_id: str) -> None:
    """Make mlflow link prompts that are registered from now on to this experiment instead of 'Default'."""
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment_id


def _versions(client: MlflowClient, name: str) -> Iterator[PromptVersion]:
    token = None
    while True:
        try:
            found = client.search_prompt_versions(name, max_results=100, page_token=token)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return
            raise
        yield from found
        token = found.token
        if not token:
            return


def _template(call: LlmCall) -> str | list[dict[str, str]]:
    if len(call.prompt) == 1 and call.prompt[0].role == "user":
        return call.prompt[0].content
    # the registry knows roles of chat models alone
    return [
        {"role": "user", "content": f"(messages: {turn.content})"} if turn.role == CONVERSATION else {"role": turn.role, "content": turn.content}
        for turn in call.prompt
    ]
