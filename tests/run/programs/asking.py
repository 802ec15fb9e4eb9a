"""A model asked with nothing but the standard library."""

import json
import os
import urllib.request


def ask(text, **more):
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    key = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(), key)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["choices"][0]["message"]
