"""
Reviews by people, and what they say of a judge.

A judge's word is a measurement with errors. People review outputs from a sample drawn at random
without seeing that word; both together give the judge's agreement, its sensitivity and
specificity, and success rates corrected for its errors.

The road not taken: letting a person's word overwrite the judge's. It would make reviewed outputs
count by another measure than all others, and leave nothing to measure the judge by.
"""
