"""`appmux serve`'s first process: it outlives the broker, so that the app-server does, too.

``supervisor`` is the loop: it starts the broker, starts the app-server when the broker asks for it,
holds the app-server's pipes (``app_servers``), and starts the next broker when one is gone.
``processes`` starts both, and ``lives`` are the records of them. ``channel`` is what the two
processes say, ``broker_messages`` which of the broker's can be acted on, ``opening`` the broker's
first words. ``service_manager`` is what systemd gives, passed on; ``descriptor_store`` is what it
keeps, so that the supervisor may go, too. ``log`` writes lines for operators. Everything here is
loaded at the start (an upgrade replaces the files of a running program), and imports nothing of the
package but ``posix``.
"""
