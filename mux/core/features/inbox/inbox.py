"""``mux/inbox`` and ``mux/usage``: a page of what needs a person and of the threads.

A page is one ``thread/list`` of the app-server, which goes up as a request of its asker does, with
what the broker knows added to each thread. Whoever follows the inbox is told from then on what
changed (``inbox_changes``).
"""

from __future__ import annotations

import msgspec

from mux.core.extension import inbox as extension
from mux.core.extension.inbox import InboxParams
from mux.core.features.inbox.inbox_cards import InboxCards
from mux.core.features.inbox.inbox_changes import InboxChanges
from mux.core.features.inbox.inbox_picture import InboxPicture
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.client import Client, ClientState
from mux.core.state.requests.request import Request
from mux.core.state.state import State
from mux.core.state.threads.cards import Card, ThreadList

LIST = "thread/list"

PEOPLES = ("cli", "vscode", "exec", "appServer", "unknown")
"""The sources of threads that a person sees; sub-agents' have others."""


class InboxRequests(Part):
    """Pages of the inbox, for whoever asks."""

    state: State
    client_requests: ClientRequests
    cards: InboxCards
    picture: InboxPicture
    changes: InboxChanges
    host: str = ""
    """The machine's name, as people know it."""

    def handle(self, client: Client, message: ClientMessage) -> None:
        """Answer ``mux/inbox`` or ``mux/usage``, or send the request for it upstream."""
        try:
            if message.method == "mux/usage":
                self._answer_usage(client, message)
                return
            params = _params_decoder.decode(message.params)
        except msgspec.DecodeError as wrong:
            text = f"`{message.method}`: {wrong}"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        if self.state.appserver.state is AppServerState.DOWN:
            page = self._page(client, params, self._known(params), None)
            self.state.answer(client.id, jsonrpc.result(message.id, page), message.method)
            return
        request = self.client_requests.ask_instead(client, message, LIST, _listing(params))
        request.inbox = params
        self.client_requests.submit(request)

    def answered(self, client: Client | None, request: Request, line: bytes) -> bytes:
        """Return the answer to a ``mux/inbox``, made of the app-server's to its ``thread/list``."""
        params = request.inbox
        if client is None or params is None:
            return line
        try:
            listed = _list_decoder.decode(line).result
        except msgspec.DecodeError:
            listed = ThreadList()  # of a shape that this version doesn't know
        for stored in listed.data:
            card = self.cards.cards.get(stored.id)
            card.introduce(stored)
            card.archived = params.archived
            state = (listed.readStates or {}).get(stored.id)
            card.read_state = bytes(state) if state is not None else card.read_state
        ids = self._with_unlisted(params, [each.id for each in listed.data])
        page = self._page(client, params, ids, listed.nextCursor)
        fields = jsonrpc.read_fields(line) or {}
        return jsonrpc.write(fields | {"result": msgspec.json.encode(page)})

    def _with_unlisted(self, params: InboxParams, listed: list[str]) -> list[str]:
        if params.cursor is not None or params.archived:
            return listed
        more = (self.cards.cards.known(id) for id in self.picture.unlisted() if id not in listed)
        return [card.id for card in more if card is not None and _fits(card, params)] + listed

    def _known(self, params: InboxParams) -> list[str]:
        """Return the threads of a page while no app-server can list them."""
        cards = [
            card
            for card in self.cards.cards.all()
            if card.archived == params.archived and _fits(card, params)
        ]
        cards.sort(key=lambda card: card.recency or card.updated or 0.0, reverse=True)
        return [card.id for card in cards[: params.limit]]

    def _page(
        self, client: Client, params: InboxParams, ids: list[str], cursor: str | None
    ) -> extension.Inbox:
        counted = self.picture.counted()
        threads = [each for id in ids if (each := self.picture.thread(id, counted)) is not None]
        scopes, app_server = client.principal.scopes, self.picture.app_server()
        page = extension.Inbox(
            revision=self.changes.revision,
            host=self.host,
            appServer=app_server,
            needs=self.picture.needs(scopes),
            threads=threads,
            nextCursor=cursor,
            limits=self.cards.limits,
        )
        if params.follow is False:
            self.changes.left(client)
        elif params.follow and client.state is ClientState.READY:
            self.changes.follow(client, threads, app_server)
        return page

    def _answer_usage(self, client: Client, message: ClientMessage) -> None:
        params = _usage_decoder.decode(message.params)
        ids = params.threadIds
        named = self.cards.cards.all() if ids is None else map(self.cards.cards.known, ids)
        used = {
            card.id: msgspec.Raw(card.usage)
            for card in named
            if card is not None and card.usage != b"null" and not card.hidden
        }
        usage = extension.Usage(used, dict(self.cards.limits))
        self.state.answer(client.id, jsonrpc.result(message.id, usage), message.method)


def _listing(params: InboxParams) -> dict[str, object]:
    """Return the params of the ``thread/list`` that makes a page."""
    listing: dict[str, object] = {
        "limit": params.limit,
        "sortKey": "recency_at",
        # Else every list reads through the rollouts first: 130 ms where there are 5,000, not 4.
        "useStateDbOnly": True,
        "sourceKinds": PEOPLES,
        "modelProviders": [],
        "archived": params.archived,
    }
    if params.cursor is not None:
        listing["cursor"] = params.cursor
    if params.search:
        listing["searchTerm"] = params.search
    return listing


def _fits(card: Card, params: InboxParams) -> bool:
    words = (params.search or "").casefold()
    return words in card.title.casefold()


class _Listed(msgspec.Struct):
    result: ThreadList


_params_decoder = msgspec.json.Decoder(InboxParams)
_usage_decoder = msgspec.json.Decoder(extension.UsageParams)
_list_decoder = msgspec.json.Decoder(_Listed)
