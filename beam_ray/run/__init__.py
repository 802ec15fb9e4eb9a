"""
Running workflows: plan, steps, tools, rate limits, the cluster, and the loop that drives them.

A step of a shard is one Ray task, run by a few asynchronous runners; rows stream from step
to step inside a runner, with no barrier and no object store traffic. The store is the only
channel between processes. The rejected alternative is one Ray task per row and step, which
cost 20 times the CPU and 11 GB of workers at 2,000 tasks.
"""
