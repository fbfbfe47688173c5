"""What is learned: words and weight deltas, and the file and the hooks that carry them.

An adapter never changes a weight of the model it is attached to; how its numbers are found is the
business of `customvideo.methods` and `customvideo.training`.
"""

from __future__ import annotations
