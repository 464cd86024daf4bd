"""Commands for phones, browsers and other machines: how they get in, and what they are told.

``pair`` lets a device in (and ``appmux invite``, from afar), ``open`` this machine's browser.
``join`` has this machine use the broker of another. ``devices`` lists those that are paired, and
changes them. ``tailnet`` switches https on the Tailnet; ``notices`` lists what was pushed, and why.

Of ``mux/cli`` it may import ``common``, ``terminal`` and ``completion``.
"""
