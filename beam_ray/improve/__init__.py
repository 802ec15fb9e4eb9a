"""
Improving a workflow: warnings, the rerun ledger, better prompts and better criteria.

``health`` warns about patterns in stored runs and names the affected tasks and the next command.
``ledger`` adds up what reruns cost and what they improved. ``optimise`` and ``search`` propose
prompts, ``criteria`` proposes criteria; all proposals are drafts until a comparison supports them.

The road not taken: one health score. It would hide a step that always fails behind five that
never do, and nobody could act on it.
"""
