"""
WHAT NEXT? What a workflow's past says about where to change it, and what the changes brought.

The question: of all that is stored, what asks for a person? The answer: counts with the
tasks behind them. Every finding of ``health`` names its tasks by address, and the command
that goes on; ``ledger`` adds up what reruns cost and what they bought. Proposals of models
(prompts, criteria) are drafts until a comparison speaks for them.

The road not taken: one score of health. It would hide a step that fails always behind five
that never do, and nobody can act on it.
"""
