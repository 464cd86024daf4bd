"""``appmux doctor``: find what is wrong on a host, and say what to do.

``report`` runs the checks and prints their results; a ``finding`` is the result of one check. The
checks: ``host`` (codex, its login, the service), ``credentials`` (tokens, certificates),
``addresses`` (who listens there, and whom it trusts), ``broker`` (the running broker, threads),
``push`` (the services' keys), ``tailnet`` (https by the host's name), ``proxies`` (what stands
before the broker), ``online`` (how the page and the push services are reached).
"""
