"""The locks of a run folder: the launcher and the app that it starts hold one each.

With one for both, the app would wait for its own launcher.
"""

from shared_model.folder_lock import hold_lock

LAUNCHER_LOCK, APP_LOCK = ".launcher.lock", ".app.lock"
LOCKS = (LAUNCHER_LOCK, APP_LOCK)

__all__ = ["APP_LOCK", "LAUNCHER_LOCK", "LOCKS", "hold_lock"]
