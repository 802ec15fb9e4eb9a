"""
Comparisons of two runs over the same tasks: metrics, gate, verdict and reports.

The question: when does a backtest of 10 to 50 tasks prove anything? The answer: everything
is paired by task, every number has an interval over tasks and not over rows, and a
newly failing task counts only after repeats. A limit that the interval leaves open is
INCONCLUSIVE, with the number of tasks that would decide.

The road not taken: comparing two averages. On paired data it hides real differences, and
with 5% of flakes it finds a regression in 92 of 100 backtests of an unchanged workflow.
"""
