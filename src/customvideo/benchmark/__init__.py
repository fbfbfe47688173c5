"""CustomStudio, the benchmark: many methods on many combinations of subjects, scored alike.

`editions` says whom a benchmark shows and `fetch` gets real photos; what is compared is a plan,
results are one table of rows, and tables, plots and pages derive from those rows alone.
"""
