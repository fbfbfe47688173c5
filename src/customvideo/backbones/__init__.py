"""Which text-to-video model is customized: one file per model family, one table of names.

It knows nothing of subjects, adapters or training; those reach a model only through the
`Backbone` protocol in `base.py`.
"""

from __future__ import annotations
