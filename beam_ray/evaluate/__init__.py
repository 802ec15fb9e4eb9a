"""
Scoring outputs: rules, a judge model, and the score computed from them.

A criterion is met, not met, or undecided with a reason. A score is the weighted share of the
criteria met. Where the judge could not decide there is no score but the reason in words, and
never a number that stands for "unknown".
"""
