"""`talkalong doctor`: looks at this machine, at what lies between it and others, and at a running server, and says in
sentences what works and what to do about the rest.

Each module holds the checks of one matter: functions that return `Finding`s. What needs the server's configuration or
the model runs in processes of their own.
"""
