"""Tables, figures and the one-file HTML report, read from a run folder's own records.

Opens no socket. Figures and pages need the extra ``graft-fl[report]``.
"""
