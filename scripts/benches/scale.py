"""A discrete-event model of one RL step on many GPUs: clients, engines, and what waits for what.

An engine decodes all its conversations together: a step of b sequences takes `token + more * (b - 1)` seconds. While it reads a
prompt it does not decode. What it has read or written it does not read again, as far as whole blocks of its prefix cache hold it.
Prompts that wait together are read together, and share nothing. A client (a training process) does one thing at a time.

In rounds one client asks for all, and waits for the slowest. At each turn it first has the server render all images of each
different prompt, and then sends the patches back with each request. It does so in threads, which share its one processor, so that
all that are at work end late. A thread waits for its reply before it takes the next request.

At its own pace each process asks for its own conversations, and sends an image once; conversations of a group open alike, and the
overview of the first is there for all.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

PATCHES = 16.0
"""Bytes of a shown pixel as an image processor's patches, in bfloat16 and base64."""
MEGAPIXEL = 1e6
CELL = 28 * 28
"""Shown pixels of an image token, of Qwen2.5-VL."""
THREADS = 64
"""Of TRL's client: the most requests that it has under way."""
ID, TOLD = 5, 70
"""Bytes of a token id in JSON, and of a written token in a reply, with its log-probability."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn: tokens that are new in its prompt, shown pixels of the images that are new, and tokens that are written."""

    read: int
    images: tuple[int, ...]
    written: int


Conversation = tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds, of one engine or one process; but `block` is tokens, and `png` bytes of a shown pixel as PNG, in base64.

    token: a decoding step of one sequence. more: the same for each further sequence. read: a prompt's token. block: tokens of a
    block of the prefix cache.
    turn: what a client spends on what it shows at a turn, and call: on a request. image: on a megapixel that it sends at its own
    pace. In rounds, on a megapixel: render: that the server has not rendered yet; send: of each different prompt; patches: that
    go with each request.
    train: an update for each token, on one GPU. sync: until the engines have new weights.
    """

    token: float = 0.013
    more: float = 0.0001
    read: float = 0.00006
    block: float = 16
    turn: float = 0.02
    call: float = 0.004
    image: float = 0.15
    render: float = 0.15
    send: float = 0.15
    patches: float = 0.15
    train: float = 0.00035
    sync: float = 4.0
    png: float = 2.1


@dataclass(frozen=True, slots=True)
class Layout:
    """Who does what. engines: GPUs that play, each an engine. trainers: GPUs that train, each a process with a client.

    pace: each conversation at its own pace; else in rounds. ahead: the next batch is played while one is trained on.
    group: conversations that open alike; they follow each other.
    """

    engines: int
    trainers: int
    pace: bool
    ahead: bool = False
    group: int = 1


@dataclass(frozen=True, slots=True)
class Played:
    """A rollout: seconds, seconds in which engines had something to do (summed), and bytes between clients and engines."""

    seconds: float
    busy: float
    bytes: int


@dataclass(slots=True)
class Engine:
    """Decodes together, reads one prompt after the other; `virtual` counts the tokens that each sequence has got so far. seen:
    whose prompts it has read."""

    rates: Rates
    since: float = 0.0
    virtual: float = 0.0
    busy: float = 0.0
    running: list[tuple[float, int]] = field(default_factory=list)
    waiting: deque[tuple[float, int, int]] = field(default_factory=deque)
    reading_until: float | None = None
    seen: set[int] = field(default_factory=set)

    def next(self) -> float:
        """When something happens that is known now; never, without work."""
        if self.reading_until is not None:
            return self.reading_until
        if not self.running:
            return inf
        return self.since + (self.running[0][0] - self.virtual) * self._step()

    def ask(self, now: float, read: int, written: int, who: int) -> None:
        """A request of `who` arrives."""
        self._advance(now)
        self.waiting.append((read * self.rates.read, written, who))
        self._begin(now)

    def happen(self, now: float) -> list[int]:
        """What `next` said; returns whose turn has ended."""
        self._advance(now)
        if self.reading_until is not None:
            _, written, who = self.waiting.popleft()
            self.seen.add(who)
            self.reading_until = None
            heapq.heappush(self.running, (self.virtual + written, who))
            self._begin(now)
            return []
        done = []
        while self.running and self.running[0][0] <= self.virtual + 1e-9:
            done.append(heapq.heappop(self.running)[1])
        return done

    def _step(self) -> float:
        return self.rates.token + self.rates.more * (len(self.running) - 1)

    def _begin(self, now: float) -> None:
        if self.reading_until is None and self.waiting:
            self.reading_until = now + self.waiting[0][0]

    def _advance(self, now: float) -> None:
        passed, self.since = now - self.since, now
        if self.reading_until is not None:
            self.busy += passed
        elif self.running:
            self.busy += passed
            self.virtual += passed / self._step()


@dataclass(slots=True)
class _Client:
    """Does one thing at a time."""

    free: float = 0.0

    def send(self, now: float, seconds: float) -> float:
        """When a request that is ready now has been sent."""
        self.free = max(self.free, now) + seconds
        return self.free


@dataclass(slots=True)
class _Threads:
    """Of a client that asks in rounds: each sends a request, all of them at the same time, and waits for its reply."""

    since: float = 0.0
    virtual: float = 0.0  # seconds of the processor that each has had so far
    sending: list[tuple[float, int]] = field(default_factory=list)
    waiting: deque[tuple[float, int]] = field(default_factory=deque)
    replying: int = 0

    def next(self) -> float:
        """When the next request has been sent; never, without any."""
        return self.since + (self.sending[0][0] - self.virtual) * len(self.sending) if self.sending else inf

    def send(self, now: float, seconds: float, who: int) -> None:
        """A request is there, which takes so many seconds of the processor."""
        self._advance(now)
        self.waiting.append((seconds, who))
        self._fill()

    def happen(self, now: float) -> list[int]:
        """What `next` said; returns whose request has been sent."""
        self._advance(now)
        _, who = heapq.heappop(self.sending)
        self.replying += 1
        return [who]

    def replied(self, now: float) -> None:
        """A thread has its reply."""
        self._advance(now)
        self.replying -= 1
        self._fill()

    def _fill(self) -> None:
        while self.waiting and self.replying + len(self.sending) < THREADS:
            seconds, who = self.waiting.popleft()
            heapq.heappush(self.sending, (self.virtual + seconds, who))

    def _advance(self, now: float) -> None:
        passed, self.since = now - self.since, now
        self.virtual += passed / max(1, len(self.sending))


class _Rollout:
    """Plays all conversations, in rounds or each at its own pace."""

    def __init__(self, conversations: Sequence[Conversation], layout: Layout, rates: Rates) -> None:
        self._talks, self._layout, self._rates = conversations, layout, rates
        self._engines = [Engine(rates) for _ in range(layout.engines)]
        self._clients = [_Client() for _ in range(layout.trainers if layout.pace else 1)]
        self._threads = _Threads()
        self._turn = [0] * len(conversations)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._versions: Counter[int] = Counter()
        self._count = self._bytes = 0
        self._round = len(conversations)

    def play(self) -> Played:
        now = 0.0
        self._begin(range(len(self._talks)), 0.0)
        while self._events:
            now, _, event = heapq.heappop(self._events)
            event(now)
        return Played(now, sum(engine.busy for engine in self._engines), self._bytes)

    def _begin(self, going: Sequence[int], now: float) -> None:
        """All can go on. In rounds first all is shown, then all images are rendered, and only then requests are sent."""
        if self._layout.pace:
            for who in going:
                self._ready(who, now)
            return
        client = self._clients[0]
        for who in going:
            client.send(now, self._rates.turn + self._rendering(who))
        self._at(client.free, lambda time: self._request(going, time))

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, event))

    def _request(self, going: Sequence[int], now: float) -> None:
        """In rounds, requests for all that are going."""
        for who in going:
            shown = _shown(self._talks[who], self._turn[who])
            self._bytes += int(shown * PATCHES) + self._told(who)
            self._threads.send(now, self._rates.call + shown / MEGAPIXEL * self._rates.patches, who)
        self._watch(self._threads, self._ask)

    def _ready(self, who: int, now: float) -> None:
        """A conversation can go on: at its own pace its client sends the request as soon as it has the time."""
        self._bytes += self._told(who)
        client = self._clients[self._group(who) % len(self._clients)]
        sent = client.send(now, self._rates.call + self._rates.turn + self._showing(who))
        self._at(sent, lambda time: self._ask(who, time))

    def _told(self, who: int) -> int:
        """Bytes of the prompt's ids, and of the reply."""
        return self._ids(who) + TOLD * self._talks[who][self._turn[who]].written

    def _ids(self, who: int) -> int:
        """Bytes of the ids of a prompt. At its own pace an image is one of them, in rounds as many as it has tokens."""
        turns = self._talks[who][: self._turn[who] + 1]
        ids = sum(one.read for one in turns) + sum(one.written for one in turns[:-1])
        cells = sum(size // CELL - 1 for one in turns for size in one.images) if self._layout.pace else 0
        return ID * max(0, ids - cells)

    def _showing(self, who: int) -> float:
        """Seconds for the images that the server does not have yet."""
        number = self._turn[who]
        new = 0 if number == 0 and self._follows(who) else sum(self._talks[who][number].images)
        self._bytes += int(new * self._rates.png)
        return new / MEGAPIXEL * self._rates.image

    def _rendering(self, who: int) -> float:
        """Seconds for all images so far, which go there once for prompts that are alike, and come back as patches."""
        turns, number = self._talks[who], self._turn[who]
        if number == 0 and self._follows(who):
            return 0.0
        new, shown = sum(turns[number].images), _shown(turns, number)
        self._bytes += int(shown * (self._rates.png + PATCHES))
        return (new * self._rates.render + shown * self._rates.send) / MEGAPIXEL

    def _group(self, who: int) -> int:
        return who // self._layout.group

    def _follows(self, who: int) -> bool:
        """Whether it opens as one before it does."""
        return who % self._layout.group > 0

    def _ask(self, who: int, now: float) -> None:
        engine = self._engine(who)
        engine.ask(now, self._unread(who), self._talks[who][self._turn[who]].written, who)
        self._watch(engine, self._spoken)

    def _unread(self, who: int) -> int:
        """Tokens of a prompt that its engine has to read. Of those that open alike, one that has been read serves the others."""
        turns, number = self._talks[who], self._turn[who]
        known = sum(one.read + one.written for one in turns[:number])
        whole = known + turns[number].read
        if number == 0 and self._follows(who) and who - who % self._layout.group in self._engine(who).seen:
            known = whole - 1
        block = int(self._rates.block)
        return whole - known // block * block

    def _engine(self, who: int) -> Engine:
        return self._engines[self._group(who) % len(self._engines)]

    def _watch(self, one: Engine | _Threads, then: Callable[[int, float], None]) -> None:
        self._versions[id(one)] += 1
        version, time = self._versions[id(one)], one.next()
        if time < inf:
            self._at(time, lambda now: self._happen(one, then, version, now))

    def _happen(self, one: Engine | _Threads, then: Callable[[int, float], None], version: int, now: float) -> None:
        if version != self._versions[id(one)]:
            return  # something has come in between
        for who in one.happen(now):
            then(who, now)
        self._watch(one, then)

    def _spoken(self, who: int, now: float) -> None:
        self._turn[who] += 1
        if self._layout.pace:
            if self._turn[who] < len(self._talks[who]):
                self._ready(who, now)
            return
        self._threads.replied(now)
        self._watch(self._threads, self._ask)
        self._round -= 1
        if self._round:
            return
        going = [one for one, turns in enumerate(self._talks) if self._turn[one] < len(turns)]
        self._round = len(going)
        if going:
            self._begin(going, now)


def _shown(turns: Conversation, number: int) -> int:
    """Pixels of all images up to this turn."""
    return sum(size for one in turns[: number + 1] for size in one.images)


def play(conversations: Sequence[Conversation], layout: Layout, rates: Rates) -> Played:
    """Plays a batch. Group number n is client n's and engine n's, counted around."""
    return _Rollout(conversations, layout, rates).play()


@dataclass(frozen=True, slots=True)
class Step:
    """A step: seconds in all, of the rollout and of the update; shares of the time in which GPUs have nothing to do; bytes."""

    seconds: float
    rollout: float
    update: float
    engines_idle: float
    trainers_idle: float
    bytes: int


def step(conversations: Sequence[Conversation], layout: Layout, rates: Rates) -> Step:
    """One step of many: a rollout, an update, and the weights on their way; with `ahead` the first two at the same time."""
    played = play(conversations, layout, rates)
    tokens = sum(turn.read + turn.written for turns in conversations for turn in turns)
    update = tokens * rates.train / layout.trainers
    working = max(played.seconds, update) if layout.ahead else played.seconds + update
    seconds = working + rates.sync
    idle = 1 - played.busy / (seconds * layout.engines)
    return Step(seconds, played.seconds, update, idle, 1 - update / seconds, played.bytes)
