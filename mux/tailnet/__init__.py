"""https on the Tailnet: tailscaled names this machine and gets its certificate; we listen by both.

Read `https` first: the task that looks at tailscaled, opens the listeners and has the certificate
renewed. `tailscaled` asks over the LocalAPI or by the `tailscale` command; `node` is what it says of
this machine; `certificate` is the pair of certificate and key that is kept; `choice` is the
operator's yes to the name, which becomes public with the first certificate.

Nothing here is imported by a broker whose operator hasn't said yes, but `choice`. It changes nothing
of Tailscale's: no mapping of `tailscale serve` either.
"""
