"""How subjects are learned: one file per published method, behind one small protocol."""
