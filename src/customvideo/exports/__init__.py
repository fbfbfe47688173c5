"""Adapters as files of other programs, and other programs' files as adapters.

One file writes each target, behind one table (`targets.py`); `possible.py` says which backbone's
adapters a target can carry and refuses the rest with the reason. Nothing is trained or drawn here
but the short clip of `verify.py`.
"""

from __future__ import annotations
