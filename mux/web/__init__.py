"""Answers to browsers' plain HTTP requests: the page's files, and what lets a browser in.

Read ``adapter`` first (h11 and ASGI, over one connection), then ``application`` (which path is
answered by what), ``files`` (the page), ``session`` (``/v1/session``), ``uploads`` and
``downloads`` (``/v1/files``). ``body`` reads a short body, ``transfer`` is what long ones share,
``headers`` holds what every answer carries, ``limits`` what a peer may cost.

Nothing here is imported before the first such request comes, and nothing is on a WebSocket's way.
Who may ask at all was judged before, in ``downstream.http.origins``. It imports access, files,
config, core, dispatch and downstream, never server or cli.
"""
