"""Where a model looks while it reads the prompt: recorded as maps, and held against masks.

It sees a denoiser as an `nn.Module` with attention modules at known paths and nothing more; which
paths those are, each backbone says.
"""

from __future__ import annotations
