"""
JUDGING it: rules, a judge model, and the score they give.

A criterion is met, not met, or undecided with a reason. A score is the weighted share of
criteria met; where the judge could not decide there is no score but a word that says why,
and never a number that stands for "unknown".
"""
