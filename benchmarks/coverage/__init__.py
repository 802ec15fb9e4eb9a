"""How often the intervals, the tests of regressions and the early stopping of a backtest are wrong, simulated."""
