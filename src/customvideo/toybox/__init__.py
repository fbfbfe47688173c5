"""The toybox: a miniature ray-traced world in which every part of the program runs anywhere.

Not a benchmark of real video: it stands in for one where no weights and no GPU are at hand.
"""
