"""The coordinator's dashboard: a folder of runs in a browser, while they go on and afterwards.

| module | does |
|---|---|
| `file_cache` | opens a run's files: whole or their end, never through a link, again only when they changed |
| `folder`, `reading` | names the runs of RUNS, and turns one's files into frozen records |
| `locks` | tells from the system's table whether a process works on a run, without touching its lock |
| `time_left` | how long the training may still take, and how little is known of that |
| `watching` | one look a second at what is being viewed, told to all viewers as server-sent events |
| `sharing` | what many ask for at the same moment, made once |
| `access`, `guard` | token and sessions; the rules for every request, before any route |
| `views`, `run_view`, `comparison`, `pages` | records to the parts of a page; templates and english.toml |
| `app`, `serving` | the routes; the listener |

Why nothing is ever written: a run is done by one process, and whoever looks at it must not be able to disturb it. So
there is no route that writes, and no lock is taken.
"""
