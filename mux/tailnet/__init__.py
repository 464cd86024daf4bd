"""Serves https by the name and with the certificate that tailscaled has for this machine.

Read ``https`` first: the task that looks at tailscaled, opens the listeners and has the certificate
renewed. ``tailscaled`` asks over the LocalAPI or by the ``tailscale`` command; ``node`` is what it
says of this machine; ``renewal`` holds the certificate, and ``certificate`` reads and keeps it;
``choice`` is the operator's yes to the name, which becomes public with the first certificate.

Nothing of Tailscale's is changed: no mapping of `tailscale serve` either. Imports ``config``,
``downstream``, ``host.steps`` and ``storage``.
"""
