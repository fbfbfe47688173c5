"""Many customizations in one go: a plan of runs in, a folder of adapters and videos out.

`plan` reads what is asked for, `work` does one run, `commands` has all of them done, here or on a
Ray cluster (`customvideo.fleet`). How one customization is learned is `customvideo.runs`.
"""
