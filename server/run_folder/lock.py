"""The locks of a run folder.

The launcher and the app that it starts lock a file each: with one for both, the app would wait for its own launcher.
A comparison of arms has a folder of another kind, which its lock, that stays there, tells from a run's.
"""

LAUNCHER_LOCK, APP_LOCK = ".launcher.lock", ".app.lock"
LOCKS = (LAUNCHER_LOCK, APP_LOCK)
COMPARISON_LOCK = ".compare.lock"
