"""The user study: many people compare videos blind, and what they prefer is told with its errors.

A study is a folder (`plan` says what is asked, `items` what is shown); `design` says who sees what,
`store` keeps the votes, `app` is the pages, `tally` and the files beside it are the numbers.
"""
