"""Rules of who may do what: values and pure functions, without a memory.

Read ``principal`` first (who a client is), then ``scopes`` (the scope that each method needs).
``approval_policy`` says who must agree to an approval, ``consent`` what counts as a yes,
``command_match`` how a command looks to a policy, ``risk`` how dangerous a yes is.
``directory_verdict`` decides what a request may do in its directories, ``confined_thread`` knows a
thread that can only talk, ``configuration_view`` cuts the answer to ``config/read``. ``notice`` has
the values that the core and the shells share about notices.

Imports ``protocol`` and ``limits`` only.
"""
