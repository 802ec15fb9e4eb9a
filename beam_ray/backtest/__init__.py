"""
Backtests: a baseline and its candidates over the same tasks, compared pair by pair.

A side is an ordinary run that borrows from another; a backtest only remembers which runs
they are. So a backtest that is killed goes on by the same command, and one that is finished
gives its verdict again without a call.
"""
