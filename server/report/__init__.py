"""The report of a run: one page, made from the run folder alone.

`content` reads the folder into `records`; each module of sections turns them into blocks; `page` writes the file. All
words stand in english.toml. Why nothing is computed anew: what may be shown was decided when the folder was written.
"""
