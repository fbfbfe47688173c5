"""How the toybox's weights are made: one file a stage, `pretrain` runs them in order."""
