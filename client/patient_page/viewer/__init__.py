"""A list of the hospital's patients in the browser, each with a page that is made when it is asked for.

Only this machine is served, and only the user who started the viewer: other users of the machine, and other sites in
the same browser, are refused (guard.py). Nothing is written.
"""
