"""Many pieces of work, done here or by many workers: who does them, in what order they end, and
what a person sees meanwhile.

What a piece is, and how one is done, is its owner's business: the benchmark's jobs and batches of
customizations are handed to the same executors.
"""
